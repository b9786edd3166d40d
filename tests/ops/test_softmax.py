from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinygpt_np.ops import softmax

rng = np.random.default_rng(3)
V = 5
X, DPROBS = rng.standard_normal((3, 4, V)), rng.standard_normal((3, 4, V))
BACKWARDS = [softmax.backward, softmax.backward_steps]
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@both_dtypes
def test_shifting_a_row_changes_nothing(dtype: Any) -> None:
    # Multiples of 1/1024 and integers add without rounding, so nothing may change.
    x = np.round(1024 * X) / 1024
    shifted = x + rng.integers(-1000, 1000, (3, 4, 1))
    probs, saved = softmax.forward(x.astype(dtype))
    probs_after, saved_after = softmax.forward(shifted.astype(dtype))
    np.testing.assert_array_equal(probs_after, probs)
    dprobs = DPROBS.astype(dtype)
    for backward in BACKWARDS:
        np.testing.assert_array_equal(backward(dprobs, saved_after), backward(dprobs, saved))


@both_dtypes
@pytest.mark.parametrize("backward", BACKWARDS)
def test_huge_logits_give_0_1_or_equal_parts(
    backward: Callable[..., np.ndarray], dtype: Any
) -> None:
    x = np.array([[1e4, -1e4, 0.0], [1e4, 1e4, -1e4]], dtype=dtype)
    probs, saved = softmax.forward(x)
    assert probs.tolist() == [[1, 0, 0], [0.5, 0.5, 0]]
    dprobs = np.array([[1, 2, 3], [1, 2, 3]], dtype=dtype)
    assert backward(dprobs, saved).tolist() == [[0, 0, 0], [-0.25, 0.25, 0]]


@both_dtypes
@pytest.mark.parametrize("backward", BACKWARDS)
def test_a_logit_of_minus_infinity_gets_zero(
    backward: Callable[..., np.ndarray], dtype: Any
) -> None:
    x = X.astype(dtype)
    x[..., 2] = -np.inf
    probs, saved = softmax.forward(x)
    dx = backward(DPROBS.astype(dtype), saved)
    assert (probs[..., 2] == 0).all()
    assert (dx[..., 2] == 0).all()
    assert np.isfinite(dx).all()


@pytest.mark.parametrize(
    ("dtype", "size"), [(np.float32, 0), (np.float64, 0), (np.float32, 1e-40), (np.float64, 1e-310)]
)
def test_equal_and_denormal_logits_give_equal_probabilities(dtype: Any, size: float) -> None:
    probs, saved = softmax.forward((size * X).astype(dtype))
    assert (probs == np.ones((), dtype) / V).all()
    expected = (DPROBS - DPROBS.mean(axis=-1, keepdims=True)) / V
    for backward in BACKWARDS:
        dx = backward(DPROBS.astype(dtype), saved)
        # The mean is a sum of V products, each below 3/V.
        np.testing.assert_allclose(dx, expected, rtol=0, atol=4 * np.finfo(dtype).eps)


@both_dtypes
def test_a_single_class_has_probability_1_and_no_gradient(dtype: Any) -> None:
    probs, saved = softmax.forward(X[..., :1].astype(dtype))
    assert (probs == 1).all()
    for backward in BACKWARDS:
        assert (backward(DPROBS[..., :1].astype(dtype), saved) == 0).all()
