from typing import Any

import numpy as np
import pytest

from tinygpt_np.ops import layer_norm

rng = np.random.default_rng(5)
N, C = 6, 8
X, WEIGHT, BIAS, DY = (rng.standard_normal(shape) for shape in ((N, C), (C,), (C,), (N, C)))
BACKWARDS = [layer_norm.backward, layer_norm.backward_steps]


def test_a_normalized_row_has_mean_zero_and_except_for_epsilon_variance_one() -> None:
    var = X.var(axis=-1)
    default, _ = layer_norm.forward(X, np.ones(C))
    larger, _ = layer_norm.forward(X, np.ones(C), epsilon=0.3)
    for y, epsilon in ((default, 1e-5), (larger, 0.3)):
        np.testing.assert_allclose(y.mean(axis=-1), 0, atol=1e-15)
        np.testing.assert_allclose(y.var(axis=-1), var / (var + epsilon), rtol=1e-12)


@pytest.mark.parametrize(("dtype", "tiny"), [(np.float32, 1e-40), (np.float64, 1e-310)])
def test_a_row_without_variance_gives_the_bias(dtype: Any, tiny: float) -> None:
    x, weight, bias, dy = (array.astype(dtype) for array in (X, WEIGHT, BIAS, DY))
    # The variance is ε, and x̂ is 0.
    dxhat = DY * WEIGHT
    expected = (dxhat - dxhat.mean(axis=-1, keepdims=True)) / layer_norm.EPSILON**0.5
    atol = C * np.finfo(dtype).eps * np.abs(dxhat).max() / layer_norm.EPSILON**0.5
    for row in (np.full((N, C), 3.0, dtype), (tiny * X).astype(dtype)):
        y, saved = layer_norm.forward(row, weight, bias)
        np.testing.assert_array_equal(y, np.tile(bias, (N, 1)))
        for backward in BACKWARDS:
            dx, dweight, _ = backward(dy, saved)
            np.testing.assert_allclose(dx, expected, rtol=0, atol=atol)
            assert np.abs(dweight).max() < 1e-30
    y, saved = layer_norm.forward(x[:, :1], weight[:1], bias[:1])  # A single channel.
    assert (y == bias[0]).all()
    for backward in BACKWARDS:
        dx, dweight, _ = backward(dy[:, :1], saved)
        assert not dx.any()
        assert not dweight.any()
