import math

import numpy as np
import pytest

from tinygpt_np.ops import gelu_exact

GRID = np.linspace(-8, 8, 1601)


def test_the_error_function_is_that_of_the_standard_library_to_2e_15() -> None:
    found = gelu_exact.error_function(GRID)
    expected = np.array([math.erf(z) for z in GRID])
    assert np.abs(found - expected).max() < 2e-15


def test_the_error_function_of_large_values_is_1() -> None:
    assert gelu_exact.error_function(np.array([7.0, -1e300])).tolist() == [1, -1]


def test_known_values() -> None:
    # torch.nn.functional.gelu(x) in float64, PyTorch 2.13.
    y, _ = gelu_exact.forward(np.array([-2.0, -0.5, 0.0, 1.0, 3.0]))
    expected = [
        -0.04550026389635842,
        -0.15426876936299344,
        0.0,
        0.841344746068543,
        2.99595030590511,
    ]
    assert y.tolist() == pytest.approx(expected, rel=1e-13)


def test_the_value_is_x_times_the_normal_distribution_function() -> None:
    y, _ = gelu_exact.forward(GRID)
    expected = [x * 0.5 * math.erfc(-x / math.sqrt(2)) for x in GRID]
    np.testing.assert_allclose(y, expected, atol=8e-15)
