from typing import Any

import numpy as np
import pytest
from helpers.kernel_bounds import EXP, TINY, assert_within, gamma
from helpers.kernel_twins import normals, plain, poisoned, wide

from tinygpt_np import ops
from tinygpt_np.compiled.kernels import attention
from tinygpt_np.compiled.kernels.attention import NO_MASK, RANK, make_scratch
from tinygpt_np.compiled.kernels.matmul import PANEL
from tinygpt_np.compiled.simd.memory import Arena

rng, normal = normals(24)
B, H = 2, 3
# (T, D): around vectors, panels and stripes, and over several of them.
SHAPES = [
    (1, 16), (2, 1), (15, 33), (16, 16), (17, 64), (63, 65), (65, 3), (RANK - 1, 32), (RANK, 16),
    (RANK + 1, 33), (20, 133),
]  # fmt: skip
dropped = pytest.mark.parametrize("has_mask", [True, False])


def inputs(time: int, size: int, has_mask: bool, scale: float = 1) -> tuple[Any, Any, Any]:
    """qkv, dy, and a mask of dropout that keeps two of three, or None. scale: of q and k."""
    width = H * size
    qkv = normal(B * time, 3 * width)
    qkv[:, : 2 * width] *= np.float32(scale**0.5)
    kept = (rng.random((B, H, time, time)) < 2 / 3).astype(np.float32) * np.float32(1.5)
    return qkv, normal(B * time, width), kept if has_mask else None


class Bounds:
    """How far float32 may be off, from the sizes of all that is added and multiplied."""

    def __init__(self, qkv: np.ndarray, mask: np.ndarray | None, batch: int, n_head: int) -> None:
        self.shape = batch, n_head
        parts = [self.heads_of(part) for part in np.split(qkv, 3, axis=1)]
        (q, k, _), (self.q, self.k, self.v) = parts, (np.abs(part) for part in parts)
        time, size = q.shape[2:]
        self.time, self.size, self.scale = time, size, size**-0.5
        visible = np.tri(time, dtype=bool)
        scores = np.where(visible, q @ k.mT * self.scale, 0)
        seen = np.where(visible, scores, -np.inf)
        probs = np.exp(seen - seen.max(axis=-1, keepdims=True))
        self.probs = probs / probs.sum(axis=-1, keepdims=True)
        self.mask = np.ones_like(probs) if mask is None else mask
        # An exp's argument: a score, of D roundings, less the largest, by the scale.
        largest = np.abs(scores).max(axis=-1, keepdims=True)
        moved = self.scale * gamma(size) * np.where(visible, self.q @ self.k.mT, 0)
        moved = moved + gamma(3) * (np.abs(scores) + largest)
        # That moves each exp, and by a mean over the row the total; T terms, two exps, a quotient
        # and a product.
        spread = np.exp(moved) * (self.probs * np.exp(moved)).sum(axis=-1, keepdims=True)
        off = spread * (1 + gamma(2 * EXP + time + 2)) - 1
        self.probs_off = self.probs * off + TINY * visible

    def heads_of(self, rows: np.ndarray) -> np.ndarray:
        return plain(ops.attention.split_heads)(rows, *self.shape)

    def y(self) -> np.ndarray:
        # A sum of T products with the mask and the values.
        off = self.probs_off + gamma(self.time + 3) * (self.probs + self.probs_off)
        return ops.attention.merge_heads((off * self.mask) @ self.v + TINY)

    def dqkv(self, dy: np.ndarray) -> np.ndarray:
        dout = self.heads_of(np.abs(dy))
        probs = self.probs + self.probs_off
        # dprobs, of D roundings and the mask; and their mean, of T more.
        dprobs = self.mask * (dout @ self.v.mT)
        mean = (probs * dprobs).sum(axis=-1, keepdims=True)
        mean_off = (self.probs_off * dprobs).sum(axis=-1, keepdims=True)
        mean_off = mean_off + gamma(self.size + self.time + 2) * mean
        off = self.probs_off * (dprobs + mean)
        off = off + probs * (gamma(self.size + 4) * dprobs + gamma(3) * mean + mean_off)
        size = dprobs + mean
        dscores, dscores_off = self.scale * probs * size, self.scale * off
        every = dscores_off + gamma(self.time + 1) * dscores
        dv = ((self.probs_off + gamma(self.time + 2) * probs) * self.mask).mT @ dout
        parts = every @ self.k, every.mT @ self.q, dv
        return np.concatenate([ops.attention.merge_heads(part) for part in parts], axis=1) + TINY


def assert_true(qkv: Any, dy: Any, mask: Any, batch: int = B, n_head: int = H) -> None:
    """Forward and backward are those of ops/ in float64 but for rounding."""
    y, saved = attention.forward(qkv, batch, n_head, mask)
    x, d = wide(qkv, dy)
    truth, saved64 = plain(ops.attention.forward)(x, batch, n_head, mask)
    bounds = Bounds(x, mask, batch, n_head)
    assert_within(y, truth, bounds.y())
    dqkv = plain(ops.attention.backward)(d, saved64)
    assert_within(attention.backward(dy, saved), dqkv, bounds.dqkv(d))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@dropped
@pytest.mark.parametrize("scale", [1, 30])
def test_results_are_the_truth_but_for_rounding(
    shape: tuple[int, int], has_mask: bool, scale: float
) -> None:
    assert_true(*inputs(*shape, has_mask, scale))


@dropped
def test_a_sequence_of_more_than_1024_tokens_is_the_truth_but_for_rounding(has_mask: bool) -> None:
    time, size = 1029, 5
    mask = np.float32(1.5) * (rng.random((1, 1, time, time)) < 2 / 3) if has_mask else None
    assert_true(normal(time, 3 * size), normal(time, size), mask, 1, 1)


@dropped
def test_scores_far_below_zero_are_the_truth_but_for_rounding(has_mask: bool) -> None:
    # exp of each score is 0, and only that of its distance to the largest is not.
    qkv, dy, mask = inputs(19, 16, has_mask)
    width = dy.shape[1]
    qkv[:, :width] += np.float32(10)
    qkv[:, width : 2 * width] -= np.float32(30)
    assert_true(qkv, dy, mask)


@pytest.mark.parametrize("shape", [(1, 3), (17, 33), (RANK + 5, 80)], ids=str)
@dropped
def test_cores_write_all_they_should_whatever_was_in_memory(
    shape: tuple[int, int], has_mask: bool
) -> None:
    time, size = shape
    qkv, dy, mask = inputs(time, size, has_mask)
    kept = NO_MASK if mask is None else mask
    y, stats, dqkv = poisoned(*dy.shape), poisoned(B, H, time, 2), poisoned(*qkv.shape)
    scratch = make_scratch(Arena(), time, size)
    expected, saved = attention.forward(qkv, B, H, mask)
    for memory in (scratch.matmul[PANEL:], *scratch[1:]):
        memory[...] = np.nan
    attention.forward_heads(qkv, H, kept, y, stats, 0, B * H, scratch)
    np.testing.assert_array_equal(y, expected)
    for memory in (scratch.matmul[PANEL:], *scratch[1:]):
        memory[...] = np.nan
    attention.backward_heads(dy, qkv, H, kept, stats, dqkv, 0, B * H, scratch)
    np.testing.assert_array_equal(dqkv, attention.backward(dy, saved))


def test_huge_scores_take_all_or_share_it() -> None:
    # Scores are 1e4, -1e4 and 1e4 again.
    qkv = np.array([[100, 100, 1], [100, -100, 2], [100, 100, 4]], np.float32)
    y, saved = attention.forward(qkv, 1, 1)
    assert y.tolist() == [[1], [1], [2.5]]
    dqkv = attention.backward(np.array([[1], [2], [8]], np.float32), saved)
    assert dqkv[:, 1:].tolist() == [[-600, 7], [0, 0], [600, 4]]


@pytest.mark.parametrize("scale", [1, 30, 100, 1000])
@dropped
def test_saturated_heads_have_accurate_gradients(scale: float, has_mask: bool) -> None:
    # float32 holds the scores of whole-number q and k exactly. With large scores most
    # probabilities are 0 or 1 and most dscores 0, while dprobs are as large as the values.
    qkv, dy, mask = inputs(RANK + 5, 16, has_mask)
    qkv *= np.float32(scale)
    qkv[:, : 2 * dy.shape[1]] = np.rint(qkv[:, : 2 * dy.shape[1]].clip(-1000, 1000))
    x, d = wide(qkv, dy)
    forward, backward = plain(ops.attention.forward), plain(ops.attention.backward)
    truth = backward(d, forward(x, B, H, mask)[1])
    numpy = backward(dy, forward(qkv, B, H, mask)[1])
    ours = attention.backward(dy, attention.forward(qkv, B, H, mask)[1])
    error, allowed = np.abs(ours - truth).max(), np.abs(numpy - truth).max()
    assert error < 3 * allowed + 1e-6 * np.abs(truth).max()


def first_tokens(rows: np.ndarray, count: int) -> np.ndarray:
    """Return the first `count` rows of each sequence."""
    return rows.reshape(B, -1, rows.shape[1])[:, :count]


later = pytest.mark.parametrize("token", [1, 3, 15, 16, 47, 64, RANK, RANK + 7])


@later
@dropped
def test_a_later_token_does_not_change_earlier_outputs_even_with_nan(
    token: int, has_mask: bool
) -> None:
    time, size = RANK + 8, 33
    qkv, _, mask = inputs(time, size, has_mask)
    expected, _ = attention.forward(qkv, B, H, mask)
    changed = first_tokens(qkv, time)[:, token:]
    changed *= np.float32(1e4)
    changed[:, :, : 2 * H * size] = np.nan
    y, _ = attention.forward(qkv, B, H, mask)
    np.testing.assert_array_equal(first_tokens(y, token), first_tokens(expected, token))


@later
@dropped
def test_a_gradient_reaches_no_later_token_and_no_other_query(token: int, has_mask: bool) -> None:
    time, size = RANK + 8, 33
    qkv, dy, mask = inputs(time, size, has_mask)
    dy_sequences = first_tokens(dy, time)
    dy_sequences[:, :token], dy_sequences[:, token + 1 :] = 0, 0
    dqkv = attention.backward(dy, attention.forward(qkv, B, H, mask)[1])
    dq, dk, dv = (first_tokens(part, time) for part in np.split(dqkv, 3, axis=1))
    assert not dk[:, token + 1 :].any()
    assert not dv[:, token + 1 :].any()
    assert not np.delete(dq, token, axis=1).any()
    assert dq[:, token].any()
    assert dk[:, :token].any(axis=2).all()


def test_what_the_mask_says_of_hidden_places_does_not_matter() -> None:
    time = RANK + 8
    qkv, dy, mask = inputs(time, 17, True)
    y, saved = attention.forward(qkv, B, H, mask)
    strange = np.where(np.tri(time, dtype=bool), mask, np.float32(np.nan))
    other, other_saved = attention.forward(qkv, B, H, strange)
    np.testing.assert_array_equal(y, other)
    np.testing.assert_array_equal(
        attention.backward(dy, saved), attention.backward(dy, other_saved)
    )
