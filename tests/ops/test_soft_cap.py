import numpy as np
import pytest

from tinygpt_np.ops import soft_cap

x = np.linspace(-9, 9, 31)


def test_values_are_within_the_cap_and_keep_their_order() -> None:
    y, _ = soft_cap.forward(x, 2.5)
    assert (np.abs(y) < 2.5).all()
    assert (np.diff(y) > 0).all()


def test_near_0_it_is_the_identity() -> None:
    y, saved = soft_cap.forward(1e-6 * x, 2.5)
    np.testing.assert_allclose(y, 1e-6 * x, rtol=1e-10)
    np.testing.assert_allclose(soft_cap.backward(np.ones_like(x), saved), 1, rtol=1e-10)


def test_the_derivative_is_1_minus_the_square_of_the_value_relative_to_the_cap() -> None:
    y, saved = soft_cap.forward(x, 2.5)
    np.testing.assert_allclose(soft_cap.backward(np.ones_like(x), saved), 1 - (y / 2.5) ** 2)


@pytest.mark.parametrize("cap", [0, -1.0, float("inf"), float("nan")])
def test_a_cap_that_is_not_positive_is_refused(cap: float) -> None:
    with pytest.raises(
        ValueError, match=f"soft_cap.forward: cap must be a positive number, not {cap}"
    ):
        soft_cap.forward(x, cap)
