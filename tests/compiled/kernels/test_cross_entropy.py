import numpy as np
import pytest
from helpers.kernel_twins import assert_within, normals, poisoned

from benchmarks.cases.rounding import EXP, TINY, U, gamma
from tinygpt_np import ops
from tinygpt_np.compiled.kernels import cross_entropy

rng, normal = normals(15)
SCALE = 0.37


# (N, V), the logits' spread and offset. Of logits far below zero, exp of each is 0, and only that
# of its distance to the largest is not.
@pytest.mark.parametrize(
    ("rows", "size", "spread", "offset"),
    [
        *((5, size, 30, 0) for size in (1, 2, 15, 16, 17, 127)),
        *((5, size, 1, -1000) for size in (1, 17, 4099)),
        (65541, 3, 1, 0),
    ],
)
def test_results_are_the_truth_but_for_rounding(
    rows: int, size: int, spread: float, offset: float
) -> None:
    logits = normal(rows, size) * np.float32(spread) + np.float32(offset)
    targets = rng.integers(0, size, rows)
    targets[2], targets[3] = -1, size - 1
    counted = targets != -1
    _, saved = ops.cross_entropy.forward(logits.astype(np.float64), targets)
    true_losses = -saved[0][np.arange(rows), targets] * counted
    true_probs = np.exp(saved[0])
    # The difference to the largest rounds once, which moves exp by that much; then exp, a sum of V.
    shifted = np.abs(logits - logits.max(axis=-1, keepdims=True)).astype(np.float64)
    total = U * (true_probs * shifted).sum(axis=-1, keepdims=True)
    total = total + gamma(EXP + size) + TINY * size
    # The logarithm turns the total's relative error into an absolute one; the rest is float64.
    loss_bound = total[:, 0] * 1.01 + 1e-11
    # The exp by its own difference and rounding, the total, a quotient and a product.
    probs_bound = true_probs * (U * shifted + total + gamma(EXP + 3)) * 1.01 + TINY

    for probs in (poisoned(rows, size), logits.copy()):
        losses, in_place = np.full(rows, np.nan), not np.isnan(probs).any()
        cross_entropy.forward_rows(probs if in_place else logits, targets, probs, losses)
        assert_within(losses, true_losses, loss_bound)
        assert_within(probs, true_probs, probs_bound)
        onehot = targets[:, None] == np.arange(size)
        truth = (probs.astype(np.float64) - onehot) * counted[:, None] * SCALE
        dlogits = probs if in_place else poisoned(rows, size)
        cross_entropy.backward_rows(probs, targets, SCALE, dlogits)
        # The scale in float32, a difference, a product; the smallest denormal number is 2**-149.
        assert_within(dlogits, truth, gamma(3) * np.abs(truth) + 2.0**-149)

    dlogits, losses = logits.copy(), np.full(rows, np.nan)
    cross_entropy.loss_and_dlogits(dlogits, targets, np.array([SCALE], np.float32), losses)
    assert_within(losses, true_losses, loss_bound)
    push = ops.cross_entropy.backward(1.0, saved) * counted.sum()  # probs - onehot
    # Probs times the scale, itself rounded; the same scale is taken from the target's.
    bound = SCALE * (probs_bound + 2 * U * true_probs + 2 * U * np.abs(push) + U)
    assert_within(dlogits, SCALE * push, bound * 1.01 + TINY)
    assert losses[2] == 0
    assert not dlogits[2].any()


@pytest.mark.parametrize("place", [0, 17, 36])
def test_a_nan_among_the_logits_is_a_nan_loss_of_that_row(place: int) -> None:
    logits = normal(3, 37)
    logits[1, place] = np.nan
    targets, losses, fused = np.array([1, 2, 3]), np.zeros(3), np.zeros(3)
    cross_entropy.forward_rows(logits, targets, poisoned(3, 37), losses)
    cross_entropy.loss_and_dlogits(logits, targets, np.ones(1, np.float32), fused)
    assert np.isnan(losses).tolist() == np.isnan(fused).tolist() == [False, True, False]
