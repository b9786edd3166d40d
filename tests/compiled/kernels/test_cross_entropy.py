from typing import Any

import numpy as np
import pytest
from helpers.kernel_bounds import EXP, TINY, U, assert_within, gamma
from helpers.kernel_twins import (
    assert_refuses_float64,
    assert_same_contract,
    assert_takes_any_layout,
    plain,
    poisoned,
)

from tinygpt_np import ops
from tinygpt_np.compiled.kernels import cross_entropy

rng = np.random.default_rng(15)
sizes = pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 127, 4099])
spreads = pytest.mark.parametrize("spread", [1, 30])
N = 5
SCALE = 0.37


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def case(size: int, spread: float = 1) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, V), and targets (N,) of which one is ignored."""
    targets = rng.integers(0, size, N)
    targets[2], targets[3] = -1, size - 1
    return normal(N, size) * np.float32(spread), targets


def truths(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """losses (N,), probs (N, V), and probs - onehot (N, V), which is 0 where ignored."""
    rows = [
        ops.cross_entropy.forward(logits[n : n + 1].astype(np.float64), targets[n : n + 1])
        for n in range(len(logits))
    ]
    losses = np.array([loss for loss, _ in rows])
    probs = np.concatenate([np.exp(saved[0]) for _, saved in rows])
    push = np.concatenate([ops.cross_entropy.backward(1.0, saved) for _, saved in rows])
    return losses, probs, push


def total_error(logits: np.ndarray, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """|logits - largest|, and a bound of the relative error of the total of their exps (N, 1)."""
    # The difference rounds once, which moves exp by that much; then exp, and a sum of V.
    shifted = np.abs(logits - logits.max(axis=-1, keepdims=True)).astype(np.float64)
    moved = U * (probs * shifted).sum(axis=-1, keepdims=True)
    return shifted, moved + gamma(EXP + logits.shape[-1]) + TINY * logits.shape[-1]


def loss_bound(logits: np.ndarray, probs: np.ndarray) -> np.ndarray:
    # The logarithm turns the total's relative error into an absolute one; the rest is float64.
    return total_error(logits, probs)[1][:, 0] * 1.01 + 1e-11


def probs_bound(logits: np.ndarray, probs: np.ndarray) -> np.ndarray:
    # The exp by its own difference and rounding, the total, a quotient and a product.
    shifted, total = total_error(logits, probs)
    return probs * (U * shifted + total + gamma(EXP + 3)) * 1.01 + TINY


@sizes
@spreads
@pytest.mark.parametrize("in_place", [False, True])
def test_forward_is_the_truth_but_for_rounding(size: int, spread: float, in_place: bool) -> None:
    logits, targets = case(size, spread)
    expected_losses, expected_probs, _ = truths(logits, targets)
    probs = logits.copy() if in_place else poisoned(N, size)
    losses = np.full(N, np.nan)
    cross_entropy.forward_rows(probs if in_place else logits, targets, probs, losses)
    assert_within(losses, expected_losses, loss_bound(logits, expected_probs))
    assert_within(probs, expected_probs, probs_bound(logits, expected_probs))
    assert losses[2] == 0


@sizes
@pytest.mark.parametrize("in_place", [False, True])
def test_backward_is_the_truth_but_for_rounding(size: int, in_place: bool) -> None:
    logits, targets = case(size)
    probs = cross_entropy.forward(logits, targets)[1][0]
    onehot = targets[:, None] == np.arange(size)
    truth = (probs.astype(np.float64) - onehot) * (targets != -1)[:, None] * SCALE
    dlogits = probs.copy() if in_place else poisoned(N, size)
    cross_entropy.backward_rows(dlogits if in_place else probs, targets, SCALE, dlogits)
    # The scale in float32, a difference, a product.
    assert_within(dlogits, truth, gamma(3) * np.abs(truth))


@sizes
@spreads
def test_loss_and_gradient_in_one_are_the_truth_but_for_rounding(size: int, spread: float) -> None:
    logits, targets = case(size, spread)
    expected_losses, probs, push = truths(logits, targets)
    dlogits, losses = logits.copy(), np.full(N, np.nan)
    cross_entropy.loss_and_dlogits(dlogits, targets, SCALE, losses)
    assert_within(losses, expected_losses, loss_bound(logits, probs))
    # Probs times the scale, itself rounded; the same scale is taken from the target's.
    bound = SCALE * (probs_bound(logits, probs) + 2 * U * probs + 2 * U * np.abs(push) + U)
    assert_within(dlogits, SCALE * push, bound * 1.01 + TINY)
    assert losses[2] == 0
    assert (dlogits[2] == 0).all()


@sizes
@spreads
def test_the_twin_is_the_truth_but_for_rounding(size: int, spread: float) -> None:
    logits, targets = case(size, spread)
    expected, saved64 = ops.cross_entropy.forward(logits.astype(np.float64), targets)
    loss, saved = cross_entropy.forward(logits, targets)
    _, probs, _ = truths(logits, targets)
    assert_within(loss, np.asarray(expected), loss_bound(logits, probs).max() + 2 * U * expected)
    dlogits = cross_entropy.backward(SCALE, saved)
    truth = plain(ops.cross_entropy.backward)(SCALE, saved64)
    bound = (SCALE / 4) * (probs_bound(logits, probs) + gamma(4) * (probs + np.abs(4 * truth)))
    assert_within(dlogits, truth, bound + gamma(4) * np.abs(truth) + TINY)


@pytest.mark.parametrize("rows", [520, 65541])
def test_many_rows_are_the_truth_but_for_rounding(rows: int) -> None:
    logits, targets = normal(rows, 3), rng.integers(-1, 3, rows)
    expected, saved = ops.cross_entropy.forward(logits.astype(np.float64), targets)
    probs, counted = np.exp(saved[0]), targets != -1
    dlogits, losses = logits.copy(), np.full(rows, np.nan)
    cross_entropy.loss_and_dlogits(dlogits, targets, SCALE, losses)
    assert (losses[~counted] == 0).all()
    bound = loss_bound(logits, probs).max()
    assert_within(losses.sum() / counted.sum(), np.asarray(expected), bound)
    push = ops.cross_entropy.backward(1.0, saved) * counted.sum()
    bound = SCALE * (probs_bound(logits, probs) + 2 * U * probs + 2 * U * np.abs(push) + U)
    assert_within(dlogits, SCALE * push, bound * 1.01 + TINY)


@sizes
def test_logits_far_below_zero_are_the_truth_but_for_rounding(size: int) -> None:
    # exp of each is 0, and only that of its distance to the largest is not.
    logits, targets = case(size)
    logits -= np.float32(1000)
    expected_losses, probs, push = truths(logits, targets)
    losses, fused = np.full(N, np.nan), np.full(N, np.nan)
    cross_entropy.forward_rows(logits, targets, poisoned(N, size), losses)
    dlogits = logits.copy()
    cross_entropy.loss_and_dlogits(dlogits, targets, SCALE, fused)
    for found in (losses, fused):
        assert_within(found, expected_losses, loss_bound(logits, probs))
    bound = SCALE * (probs_bound(logits, probs) + 2 * U * probs + 2 * U * np.abs(push) + U)
    assert_within(dlogits, SCALE * push, bound * 1.01 + TINY)


def test_huge_logits_are_certain_or_share_it() -> None:
    logits = np.array([[1e4, -1e4, 0], [1e4, 1e4, -1e4], [0, -1e4, 1e4]], np.float32)
    losses = np.full(3, np.nan)
    cross_entropy.loss_and_dlogits(logits, np.array([0, 1, 1]), 1.0, losses)
    # Beside logits of 1e4, float64 knows a loss to some 1e-12.
    np.testing.assert_allclose(losses, [0, np.log(2), 20000], rtol=0, atol=1e-11)
    assert logits.tolist() == [[0, 0, 0], [0.5, -0.5, 0], [0, -1, 1]]


@pytest.mark.parametrize("place", [0, 3, 17, 36])
def test_a_nan_among_the_logits_is_a_nan_loss_of_that_row(place: int) -> None:
    logits = normal(3, 37)
    logits[1, place] = np.nan
    targets = np.array([1, 2, 3])
    losses, fused = np.zeros(3), np.zeros(3)
    cross_entropy.forward_rows(logits, targets, poisoned(3, 37), losses)
    cross_entropy.loss_and_dlogits(logits, targets, 1.0, fused)
    assert np.isnan(losses).tolist() == np.isnan(fused).tolist() == [False, True, False]


def test_with_nothing_to_count_the_loss_is_0() -> None:
    loss, saved = cross_entropy.forward(normal(3, 5), np.full(3, -1))
    assert loss == 0
    assert (cross_entropy.backward(1.0, saved) == 0).all()


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32])
def test_targets_may_be_any_integers(dtype: Any) -> None:
    logits, targets = normal(4, 7), np.array([1, 6, 0, 3])
    assert (
        cross_entropy.forward(logits, targets.astype(dtype))[0]
        == cross_entropy.forward(logits, targets)[0]
    )


def test_targets_that_are_no_integers_are_refused() -> None:
    with pytest.raises(TypeError, match=r"^cross_entropy.forward: targets must be an array of"):
        cross_entropy.forward(normal(2, 3), np.array([0.0, 1.5]))


def test_the_contract_is_that_of_ops() -> None:
    assert_same_contract(cross_entropy, ops.cross_entropy, "forward", "backward")


def test_any_layout_gives_the_same_and_stays_as_it_was() -> None:
    logits, targets = case(7)
    assert_takes_any_layout(cross_entropy.forward, logits, targets)


def test_float64_is_refused() -> None:
    assert_refuses_float64(cross_entropy.forward, "cross_entropy.forward: logits", *case(7))
