import numpy as np

from tinygpt_np.ops import silu

x = np.linspace(-30, 30, 101)


def test_the_value_is_x_times_its_sigmoid() -> None:
    np.testing.assert_allclose(silu.forward(x)[0], x / (1 + np.exp(-x)), rtol=1e-12, atol=1e-14)


def test_the_derivatives_at_x_and_at_minus_x_sum_to_1() -> None:
    def derivative(x: np.ndarray) -> np.ndarray:
        return silu.backward(np.ones_like(x), silu.forward(x)[1])

    np.testing.assert_allclose(derivative(x) + derivative(-x), 1)


def test_the_slope_is_0_at_the_minimum() -> None:
    # With Lambert's W, the minimum is -W(1/e), at x = -1 - W(1/e).
    lowest = 0.2784645427610738
    y, saved = silu.forward(np.array([-1 - lowest]))
    np.testing.assert_allclose(y, -lowest)
    np.testing.assert_allclose(silu.backward(np.ones(1), saved), 0, atol=1e-15)


def test_large_values_pass_unchanged_and_very_negative_ones_become_zero() -> None:
    large = np.array([50.0, 1e4, 1e300])
    for sign, slope in ((1, 1), (-1, 0)):
        y, saved = silu.forward(sign * large)
        np.testing.assert_array_equal(y, slope * large)
        np.testing.assert_array_equal(silu.backward(np.full(3, 7.0), saved), 7 * slope)
