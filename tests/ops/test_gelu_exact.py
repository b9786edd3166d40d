import math

import numpy as np

from tinygpt_np.ops import gelu_exact

GRID = np.linspace(-8, 8, 1601)


def test_the_error_function_is_that_of_the_standard_library_to_2e_15() -> None:
    z = np.array([*GRID, -1e300])
    expected = [math.erf(each) for each in z]
    assert np.abs(gelu_exact.error_function(z) - expected).max() < 2e-15


def test_the_value_is_x_times_the_normal_distribution_function() -> None:
    y, _ = gelu_exact.forward(GRID)
    expected = [x * 0.5 * math.erfc(-x / math.sqrt(2)) for x in GRID]
    np.testing.assert_allclose(y, expected, atol=8e-15)
