from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinygpt_np.ops import layer_norm

rng = np.random.default_rng(5)
N, C = 6, 8
X, WEIGHT, BIAS, DY = (rng.standard_normal(shape) for shape in ((N, C), (C,), (C,), (N, C)))
BACKWARDS = [layer_norm.backward, layer_norm.backward_steps]
both_backwards = pytest.mark.parametrize("backward", BACKWARDS)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def as_dtype(dtype: Any) -> list[np.ndarray]:
    return [array.astype(dtype) for array in (X, WEIGHT, BIAS, DY)]


def test_a_normalized_row_has_mean_zero_and_variance_one() -> None:
    y, _ = layer_norm.forward(X, np.ones(C))
    np.testing.assert_allclose(y.mean(axis=-1), 0, atol=1e-15)
    var = X.var(axis=-1)
    np.testing.assert_allclose(y.var(axis=-1), var / (var + layer_norm.EPSILON), rtol=1e-12)


@both_backwards
@both_dtypes
def test_a_constant_row_gives_the_bias(
    backward: Callable[..., tuple[np.ndarray, ...]], dtype: Any
) -> None:
    _, weight, bias, dy = as_dtype(dtype)
    y, saved = layer_norm.forward(np.full((N, C), 3.0, dtype), weight, bias)
    np.testing.assert_array_equal(y, np.tile(bias, (N, 1)))
    dx, dweight, _ = backward(dy, saved)
    # The variance is ε, and x̂ is 0.
    dxhat = DY * WEIGHT
    expected = (dxhat - dxhat.mean(axis=-1, keepdims=True)) / layer_norm.EPSILON**0.5
    atol = C * np.finfo(dtype).eps * np.abs(dxhat).max() / layer_norm.EPSILON**0.5
    np.testing.assert_allclose(dx, expected, rtol=0, atol=atol)
    assert (dweight == 0).all()


@both_backwards
@both_dtypes
def test_a_single_channel_gives_the_bias(
    backward: Callable[..., tuple[np.ndarray, ...]], dtype: Any
) -> None:
    x, weight, bias, dy = as_dtype(dtype)
    y, saved = layer_norm.forward(x[:, :1], weight[:1], bias[:1])
    assert (y == bias[0]).all()
    dx, dweight, _ = backward(dy[:, :1], saved)
    assert (dx == 0).all()
    assert (dweight == 0).all()


@both_backwards
@pytest.mark.parametrize(("dtype", "size"), [(np.float32, 1e-40), (np.float64, 1e-310)])
def test_denormal_values_are_like_zeros(
    backward: Callable[..., tuple[np.ndarray, ...]], dtype: Any, size: float
) -> None:
    _, weight, bias, dy = as_dtype(dtype)
    y, saved = layer_norm.forward((size * X).astype(dtype), weight, bias)
    np.testing.assert_array_equal(y, np.tile(bias, (N, 1)))
    _, saved_zeros = layer_norm.forward(np.zeros((N, C), dtype), weight, bias)
    np.testing.assert_array_equal(backward(dy, saved)[0], backward(dy, saved_zeros)[0])


@both_backwards
@pytest.mark.parametrize(("dtype", "power"), [(np.float32, 50), (np.float64, 100)])
def test_the_size_of_huge_values_does_not_matter(
    backward: Callable[..., tuple[np.ndarray, ...]], dtype: Any, power: int
) -> None:
    # ε is negligible in both variances, and a power of 2 scales without rounding.
    x, weight, bias, dy = as_dtype(dtype)
    large, huge = x * dtype(2.0**35), x * dtype(2.0**power)
    y, saved = layer_norm.forward(large, weight, bias)
    y_of_huge, saved_huge = layer_norm.forward(huge, weight, bias)
    np.testing.assert_array_equal(y_of_huge, y)
    dx, dx_of_huge = backward(dy, saved)[0], backward(dy, saved_huge)[0]
    np.testing.assert_array_equal(dx_of_huge * dtype(2.0 ** (power - 35)), dx)
