from typing import Any

import numpy as np
import pytest

from tinygpt_np.ops import cross_entropy

rng = np.random.default_rng(4)
N, V = 6, 11
LOGITS = rng.standard_normal((N, V))
TARGETS = np.array([4, -1, 0, 4, 10, -1])
BACKWARDS = [cross_entropy.backward, cross_entropy.backward_steps]


def test_the_loss_is_the_mean_of_minus_log_probability() -> None:
    counted = [(row, target) for row, target in zip(LOGITS, TARGETS, strict=True) if target >= 0]
    expected = np.mean([-np.log(np.exp(row[t]) / np.exp(row).sum()) for row, t in counted])
    loss, _ = cross_entropy.forward(LOGITS, TARGETS)
    assert loss == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("targets", [TARGETS, np.array([-1, -1, -1, 7, -1, -1])])
def test_ignored_rows_change_nothing(targets: np.ndarray) -> None:
    counted = targets >= 0
    loss, saved = cross_entropy.forward(LOGITS, targets)
    alone, saved_alone = cross_entropy.forward(LOGITS[counted], targets[counted])
    assert loss == alone
    for backward in BACKWARDS:
        dlogits = backward(1.0, saved)
        np.testing.assert_array_equal(dlogits[counted], backward(1.0, saved_alone))
        assert (dlogits[~counted] == 0).all()


def test_without_targets_loss_and_gradient_are_zero() -> None:
    loss, saved = cross_entropy.forward(LOGITS, np.full(N, -1))
    assert loss == 0
    assert not any(backward(1.0, saved).any() for backward in BACKWARDS)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("row", "target", "expected", "gradient"),
    [
        ([1e4, -1e4, 0.0], 1, 2e4, [1, -1, 0]),
        ([5.0], 0, 0, [0]),
        ([1e-40] * 2, 0, None, [-0.5, 0.5]),
    ],
)
def test_a_loss_is_the_distance_of_huge_logits_and_zero_for_a_single_class(
    row: list[float], target: int, expected: float | None, gradient: list[float], dtype: Any
) -> None:
    loss, saved = cross_entropy.forward(np.array([row], dtype), np.array([target]))
    assert loss == (np.log(dtype(2)) if expected is None else expected)
    for backward in BACKWARDS:
        dlogits = backward(np.asarray(1.0), saved)  # In float64, whatever the logits are.
        assert dlogits.dtype == dtype
        assert dlogits.tolist() == [gradient]
