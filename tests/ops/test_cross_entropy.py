from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinygpt_np.ops import cross_entropy

rng = np.random.default_rng(4)
N, V = 6, 11
LOGITS = rng.standard_normal((N, V))
TARGETS = np.array([4, -1, 0, 4, 10, -1])
BACKWARDS = [cross_entropy.backward, cross_entropy.backward_steps]
both_backwards = pytest.mark.parametrize("backward", BACKWARDS)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def test_the_loss_is_the_mean_of_minus_log_probability() -> None:
    counted = [(row, target) for row, target in zip(LOGITS, TARGETS, strict=True) if target >= 0]
    expected = np.mean([-np.log(np.exp(row[t]) / np.exp(row).sum()) for row, t in counted])
    loss, _ = cross_entropy.forward(LOGITS, TARGETS)
    assert loss == pytest.approx(expected, rel=1e-14)


@both_backwards
@pytest.mark.parametrize("targets", [TARGETS, np.array([-1, -1, -1, 7, -1, -1])])
def test_ignored_rows_change_nothing(
    backward: Callable[..., np.ndarray], targets: np.ndarray
) -> None:
    counted = targets >= 0
    loss, saved = cross_entropy.forward(LOGITS, targets)
    alone, saved_alone = cross_entropy.forward(LOGITS[counted], targets[counted])
    assert loss == alone
    dlogits = backward(1.0, saved)
    np.testing.assert_array_equal(dlogits[counted], backward(1.0, saved_alone))
    assert (dlogits[~counted] == 0).all()


def test_without_targets_loss_and_gradient_are_zero() -> None:
    loss, saved = cross_entropy.forward(LOGITS, np.full(N, -1))
    assert loss == 0
    assert (cross_entropy.backward(1.0, saved) == 0).all()
    assert (cross_entropy.backward_steps(1.0, saved) == 0).all()


def test_a_float64_upstream_gradient_keeps_float32() -> None:
    _, saved = cross_entropy.forward(LOGITS.astype(np.float32), TARGETS)
    for backward in BACKWARDS:
        assert backward(np.asarray(2.0), saved).dtype == np.float32


@both_backwards
@both_dtypes
def test_a_single_class_has_loss_and_gradient_zero(
    backward: Callable[..., np.ndarray], dtype: Any
) -> None:
    loss, saved = cross_entropy.forward(LOGITS[:, :1].astype(dtype), np.zeros(N, dtype=np.int64))
    assert loss == 0
    assert (backward(1.0, saved) == 0).all()


@both_backwards
@both_dtypes
def test_huge_logits_cost_their_distance(backward: Callable[..., np.ndarray], dtype: Any) -> None:
    logits = np.array([[1e4, -1e4, 0.0]], dtype=dtype)
    loss, saved = cross_entropy.forward(logits, np.array([1]))
    assert loss == 2e4
    assert backward(1.0, saved).tolist() == [[1, -1, 0]]


@both_backwards
@pytest.mark.parametrize(("dtype", "size"), [(np.float32, 1e-40), (np.float64, 1e-310)])
def test_denormal_logits_are_like_zeros(
    backward: Callable[..., np.ndarray], dtype: Any, size: float
) -> None:
    zero, saved_zero = cross_entropy.forward(np.zeros((N, V), dtype), TARGETS)
    loss, saved = cross_entropy.forward((size * LOGITS).astype(dtype), TARGETS)
    assert loss == zero
    np.testing.assert_array_equal(backward(1.7, saved), backward(1.7, saved_zero))
