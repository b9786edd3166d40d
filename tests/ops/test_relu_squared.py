import numpy as np

from tinygpt_np.ops import relu_squared

x = np.array([-3.0, -0.0, 0.0, 0.5, 3.0])


def test_positive_values_are_squared_and_others_become_0() -> None:
    np.testing.assert_array_equal(relu_squared.forward(x)[0], [0, 0, 0, 0.25, 9])


def test_the_derivative_is_twice_relu() -> None:
    _, saved = relu_squared.forward(x)
    np.testing.assert_array_equal(
        relu_squared.backward(np.full(5, -7.0), saved), [0, 0, 0, -7, -42]
    )


def test_the_value_and_its_slope_are_continuous_at_0() -> None:
    y, saved = relu_squared.forward(np.array([1e-9]))
    assert y < 1e-17
    assert relu_squared.backward(np.ones(1), saved) < 1e-8
