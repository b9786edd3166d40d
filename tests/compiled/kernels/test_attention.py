from typing import Any

import numpy as np
import pytest
from helpers.kernel_twins import assert_within, normals, poisoned, wide

from benchmarks.cases import unchecked
from benchmarks.cases.rounding import EXP, TINY, gamma
from tinygpt_np import ops
from tinygpt_np.compiled.kernels import attention
from tinygpt_np.compiled.kernels.attention import NO_MASK, RANK, make_scratch
from tinygpt_np.compiled.kernels.matmul import PANEL
from tinygpt_np.compiled.simd.memory import Arena

rng, normal = normals(24)
B, H = 2, 3
dropped = pytest.mark.parametrize("has_mask", [True, False])


def inputs(
    time: int, size: int, has_mask: bool, n_head: int = H, n_kv_head: int = H
) -> tuple[np.ndarray, np.ndarray, Any]:
    """qkv, dy, and a mask of dropout that keeps two of three, or None."""
    kept = np.float32(1.5) * (rng.random((B, n_head, time, time)) < 2 / 3)
    qkv = normal(B * time, (n_head + 2 * n_kv_head) * size)
    return qkv, normal(B * time, n_head * size), kept if has_mask else None


class Bounds:
    """Bounds on float32 errors, from the sizes of all that is added and multiplied."""

    def __init__(
        self, qkv: np.ndarray, mask: np.ndarray | None, n_head: int = H, n_kv_head: int = H
    ) -> None:
        heads = unchecked(ops.attention.split_heads)(qkv, B, n_head + 2 * n_kv_head)
        q, *shared = np.split(heads, [n_head, n_head + n_kv_head], axis=1)
        self.group = n_head // n_kv_head
        parts = [q, *(np.repeat(each, self.group, axis=1) for each in shared)]
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

    def y(self) -> np.ndarray:
        # A sum of T products with the mask and the values.
        off = self.probs_off + gamma(self.time + 3) * (self.probs + self.probs_off)
        return ops.attention.merge_heads((off * self.mask) @ self.v + TINY)

    def dqkv(self, dy: np.ndarray) -> np.ndarray:
        n_head = self.q.shape[1]
        dout = unchecked(ops.attention.split_heads)(np.abs(dy), B, n_head)
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
        # Sums over the T queries of all heads that share a key.
        terms = self.group * self.time
        every = dscores_off + gamma(terms + 1) * dscores
        dv = ((self.probs_off + gamma(terms + 2) * probs) * self.mask).mT @ dout
        shared = [
            unchecked(ops.attention.group_heads)(each, n_head // self.group).sum(axis=2)
            for each in (every.mT @ self.q, dv)
        ]
        parts = np.concatenate([every @ self.k, *shared], axis=1)
        return ops.attention.merge_heads(parts) + TINY


# (T, D): around vectors, panels and stripes, and over several of them. Scores far below zero, where
# exp of each is 0, and only that of its distance to the largest is not. Groups of queries.
@pytest.mark.parametrize(("time", "size", "scale", "offset", "heads"), [
    *((time, size, scale, 0, (H, H)) for scale in (1, 30) for time, size in (
        (1, 16), (2, 1), (15, 33), (17, 64), (63, 65), (65, 3), (RANK, 16), (RANK + 1, 33),
        (20, 133))),
    (19, 16, 1, 10, (H, H)), (1029, 1, 1, 0, (H, H)),
    (1, 5, 1, 0, (6, 2)), (15, 33, 1, 0, (3, 1)), (65, 3, 30, 0, (8, 4)), (17, 64, 30, 0, (5, 1)),
    (RANK + 1, 17, 1, 0, (6, 2)), (2 * RANK + 9, 1, 1, 0, (4, 2)), (20, 133, 1, 0, (6, 3)),
])  # fmt: skip
@dropped
def test_results_are_the_truth_but_for_rounding_whatever_was_in_memory(
    time: int, size: int, scale: float, offset: float, heads: tuple[int, int], has_mask: bool
) -> None:
    n_head, n_kv_head = heads
    qkv, dy, mask = inputs(time, size, has_mask, *heads)
    width = dy.shape[1]
    end = width + n_kv_head * size
    qkv[:, :end] *= np.float32(scale**0.5)
    qkv[:, :width] += np.float32(offset)
    qkv[:, width:end] -= np.float32(3 * offset)
    # The mask at hidden places does not matter.
    given = NO_MASK if mask is None else np.where(np.tri(time, dtype=bool), mask, np.nan)
    given, scratch = given.astype(np.float32), make_scratch(Arena(), time, size)
    y, stats, dqkv = poisoned(*dy.shape), poisoned(B, n_head, time, 2), poisoned(*qkv.shape)
    for memory in (scratch.matmul[PANEL:], *scratch[1:]):
        memory[...] = np.nan
    # Two parts, as two threads compute them.
    parts = [(0, 1, scratch), (1, B * n_kv_head, scratch)]
    for part in parts:
        attention.forward_heads(qkv, *heads, given, y, stats, *part)
    x, d = wide(qkv, dy)
    truth, saved = unchecked(ops.attention.forward)(x, B, n_head, mask, n_kv_head)
    bounds = Bounds(x, mask, *heads)
    assert_within(y, truth, bounds.y())
    for memory in (scratch.matmul[PANEL:], *scratch[1:]):
        memory[...] = np.nan
    for part in parts:
        attention.backward_heads(dy, qkv, *heads, given, stats, dqkv, *part)
    assert_within(dqkv, unchecked(ops.attention.backward)(d, saved), bounds.dqkv(d))


@pytest.mark.parametrize("n_kv_head", [1, 2, 3])
@dropped
def test_a_group_is_as_heads_with_equal_keys_and_values(n_kv_head: int, has_mask: bool) -> None:
    qkv, dy, mask = inputs(RANK + 9, 19, has_mask, 6, n_kv_head)
    q, *shared = np.split(qkv.reshape(len(qkv), -1, 19), [6, 6 + n_kv_head], axis=1)
    repeated = np.concatenate([q, *(np.repeat(e, 6 // n_kv_head, axis=1) for e in shared)], axis=1)
    y, saved = attention.forward(qkv, B, 6, mask, n_kv_head)
    expected, as_well = attention.forward(repeated.reshape(len(qkv), -1), B, 6, mask)
    np.testing.assert_array_equal(y, expected)
    dq, dq_expected = (attention.backward(dy, each)[:, : 6 * 19] for each in (saved, as_well))
    np.testing.assert_array_equal(dq, dq_expected)


def test_one_head_of_keys_for_each_query_is_the_default() -> None:
    qkv, dy, mask = inputs(21, 12, True)
    (y, saved), (expected, as_well) = (
        attention.forward(qkv, B, H, mask, *given) for given in ((), (H,))
    )
    np.testing.assert_array_equal(y, expected)
    dqkv, expected = (attention.backward(dy, each) for each in (saved, as_well))
    np.testing.assert_array_equal(dqkv, expected)


@pytest.mark.parametrize("scale", [1, 30, 1000])
@dropped
def test_saturated_heads_have_accurate_gradients(scale: float, has_mask: bool) -> None:
    # float32 holds the scores of whole-number q and k exactly. With large scores most
    # probabilities are 0 or 1 and most dscores 0, while dprobs are as large as the values.
    qkv, dy, mask = inputs(RANK + 5, 16, has_mask)
    qkv *= np.float32(scale)
    qkv[:, : 2 * dy.shape[1]] = np.rint(qkv[:, : 2 * dy.shape[1]].clip(-1000, 1000))
    x, d = wide(qkv, dy)
    forward, backward = unchecked(ops.attention.forward), unchecked(ops.attention.backward)
    truth = backward(d, forward(x, B, H, mask)[1])
    numpy = backward(dy, forward(qkv, B, H, mask)[1])
    ours = attention.backward(dy, attention.forward(qkv, B, H, mask)[1])
    error, allowed = np.abs(ours - truth).max(), np.abs(numpy - truth).max()
    assert error < 3 * allowed + 1e-6 * np.abs(truth).max()


@pytest.mark.parametrize("token", [1, 15, 16, 64, RANK, RANK + 7])
@dropped
def test_a_later_token_changes_nothing_before_it_and_gets_no_gradient(
    token: int, has_mask: bool
) -> None:
    def of_tokens(rows: np.ndarray) -> np.ndarray:
        return rows.reshape(B, -1, rows.shape[1])

    qkv, dy, mask = inputs(RANK + 8, 33, has_mask)
    y, saved = attention.forward(qkv, B, H, mask)
    # Only one query's output has a gradient.
    one = np.zeros_like(dy)
    of_tokens(one)[:, token] = of_tokens(dy)[:, token]
    dqkv = attention.backward(one, saved)
    dq, dk, dv = (of_tokens(part) for part in np.split(dqkv, 3, axis=1))
    assert not dk[:, token + 1 :].any()
    assert not dv[:, token + 1 :].any()
    assert not np.delete(dq, token, axis=1).any()
    assert dq[:, token].any()
    assert dk[:, :token].any(axis=2).all()
    of_tokens(qkv)[:, token:] *= np.float32(1e4)
    of_tokens(qkv)[:, token:, : 2 * dy.shape[1]] = np.nan
    changed, _ = attention.forward(qkv, B, H, mask)
    np.testing.assert_array_equal(of_tokens(changed)[:, :token], of_tokens(y)[:, :token])
