from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinygpt_np.ops import softmax

rng = np.random.default_rng(3)
X, DPROBS = rng.standard_normal((2, 3, 4, 5))[0], rng.standard_normal((3, 4, 5))


def test_every_row_sums_to_one() -> None:
    probs, _ = softmax.forward(X)
    np.testing.assert_allclose(probs.sum(axis=-1), 1, rtol=1e-15)


def test_shifting_a_row_leaves_its_probabilities_unchanged() -> None:
    probs, _ = softmax.forward(X)
    shifted, _ = softmax.forward(X + rng.standard_normal((3, 4, 1)))
    np.testing.assert_allclose(shifted, probs, rtol=1e-14)


@pytest.mark.parametrize("backward", [softmax.backward, softmax.backward_steps])
def test_every_row_of_the_gradient_sums_to_zero(backward: Callable[..., np.ndarray]) -> None:
    _, saved = softmax.forward(X)
    np.testing.assert_allclose(backward(DPROBS, saved).sum(axis=-1), 0, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_logits_neither_overflow_nor_warn(dtype: Any) -> None:
    x: np.ndarray = np.array([[1e4, -1e4, 0.0], [1e4, 1e4, -1e4]], dtype=dtype)
    probs, saved = softmax.forward(x)
    assert probs.tolist() == [[1, 0, 0], [0.5, 0.5, 0]]
    assert np.isfinite(softmax.backward(np.ones_like(x), saved)).all()
