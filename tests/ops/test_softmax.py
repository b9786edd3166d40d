from typing import Any

import numpy as np
import pytest

from tinygpt_np.ops import softmax

rng = np.random.default_rng(3)
X, DPROBS = rng.standard_normal((3, 4, 5)), rng.standard_normal((3, 4, 5))
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
@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([1e4, -1e4, 0.0], [1, 0, 0]),
        ([1e4, 1e4, -1e4], [0.5, 0.5, 0]),
        ([2.0, -np.inf, 2.0], [0.5, 0, 0.5]),
        ([0.0, 1e-40, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]),
        ([7.0], [1]),  # A single class has no gradient.
    ],
)
def test_huge_infinite_and_equal_logits_give_exact_parts(
    row: list[float], expected: list[float], dtype: Any
) -> None:
    probs, saved = softmax.forward(np.array([row], dtype))
    assert probs.tolist() == [expected]
    dprobs = np.arange(1, 1 + len(row), dtype=dtype)
    dx = np.array(expected) * (dprobs - dprobs @ expected)
    for backward in BACKWARDS:
        assert backward(dprobs[None], saved).tolist() == [dx.tolist()]
