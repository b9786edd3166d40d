import numpy as np

from tinygpt_np.ops import relu

x = np.array([-3.0, -1e-300, -0.0, 0.0, 1e-300, 3.0])


def test_only_positive_values_pass_and_the_derivative_at_0_is_0() -> None:
    y, saved = relu.forward(x)
    np.testing.assert_array_equal(y, [0, 0, 0, 0, 1e-300, 3])
    np.testing.assert_array_equal(relu.backward(np.full(6, -7.0), saved), [0, 0, 0, 0, -7, -7])


def test_a_blocked_gradient_is_0_even_if_it_is_infinite() -> None:
    _, saved = relu.forward(x)
    np.testing.assert_array_equal(relu.backward(np.full(6, np.inf), saved)[:4], 0)


def test_nan_stays_visible() -> None:
    assert np.isnan(relu.forward(np.array([np.nan]))[0])


def test_the_real_part_of_a_complex_number_decides() -> None:
    y, _ = relu.forward(np.array([2 - 5j, -2 + 5j]))
    np.testing.assert_array_equal(y, [2 - 5j, 0])
