import numpy as np
import pytest
from helpers.kernel_bounds import EXP, TINY, U, assert_within, gamma
from helpers.kernel_twins import normals, poisoned

from tinygpt_np import ops
from tinygpt_np.compiled.kernels import cross_entropy

rng, normal = normals(15)
SCALE = 0.37
# (N, V), the logits' spread and offset. Of logits far below zero, exp of each is 0, and only that
# of its distance to the largest is not.
every_case = pytest.mark.parametrize(
    ("rows", "size", "spread", "offset"),
    [
        *((5, size, spread, 0) for size in (1, 2, 15, 16, 17, 127, 4099) for spread in (1, 30)),
        *((5, size, 1, -1000) for size in (1, 17, 4099)),
        *((rows, 3, 1, 0) for rows in (520, 65541)),
    ],
)
in_place_or_not = pytest.mark.parametrize("in_place", [False, True])


def inputs(rows: int, size: int, spread: float, offset: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, V), and targets (N,) of which one is ignored."""
    targets = rng.integers(0, size, rows)
    targets[2], targets[3] = -1, size - 1
    return normal(rows, size) * np.float32(spread) + np.float32(offset), targets


def truths(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return losses (N,), probs (N, V), and probs - onehot (N, V), which is 0 where ignored."""
    _, saved = ops.cross_entropy.forward(logits.astype(np.float64), targets)
    counted = targets != -1
    losses = -saved[0][np.arange(len(targets)), targets] * counted
    push = ops.cross_entropy.backward(1.0, saved) * counted.sum()
    return losses, np.exp(saved[0]), push


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


@every_case
@in_place_or_not
def test_forward_is_the_truth_but_for_rounding(
    rows: int, size: int, spread: float, offset: float, in_place: bool
) -> None:
    logits, targets = inputs(rows, size, spread, offset)
    expected_losses, expected_probs, _ = truths(logits, targets)
    probs = logits.copy() if in_place else poisoned(rows, size)
    losses = np.full(rows, np.nan)
    cross_entropy.forward_rows(probs if in_place else logits, targets, probs, losses)
    assert_within(losses, expected_losses, loss_bound(logits, expected_probs))
    assert_within(probs, expected_probs, probs_bound(logits, expected_probs))
    assert losses[2] == 0


@every_case
@in_place_or_not
def test_backward_is_the_truth_but_for_rounding(
    rows: int, size: int, spread: float, offset: float, in_place: bool
) -> None:
    logits, targets = inputs(rows, size, spread, offset)
    probs = cross_entropy.forward(logits, targets)[1][0]
    onehot = targets[:, None] == np.arange(size)
    truth = (probs.astype(np.float64) - onehot) * (targets != -1)[:, None] * SCALE
    dlogits = probs.copy() if in_place else poisoned(rows, size)
    cross_entropy.backward_rows(dlogits if in_place else probs, targets, SCALE, dlogits)
    # The scale in float32, a difference, a product; the smallest denormal number is 2**-149.
    assert_within(dlogits, truth, gamma(3) * np.abs(truth) + 2.0**-149)


@every_case
def test_loss_and_gradient_in_one_are_the_truth_but_for_rounding(
    rows: int, size: int, spread: float, offset: float
) -> None:
    logits, targets = inputs(rows, size, spread, offset)
    expected_losses, probs, push = truths(logits, targets)
    dlogits, losses = logits.copy(), np.full(rows, np.nan)
    cross_entropy.loss_and_dlogits(dlogits, targets, SCALE, losses)
    assert_within(losses, expected_losses, loss_bound(logits, probs))
    # Probs times the scale, itself rounded; the same scale is taken from the target's.
    bound = SCALE * (probs_bound(logits, probs) + 2 * U * probs + 2 * U * np.abs(push) + U)
    assert_within(dlogits, SCALE * push, bound * 1.01 + TINY)
    assert losses[2] == 0
    assert (dlogits[2] == 0).all()


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
