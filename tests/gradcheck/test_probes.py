"""The directions in which a tensor is moved, and the units of the steps."""

import numpy as np
import pytest

from tinygpt_np.gradcheck.probes import Probes, magnitudes, typical


def test_coordinates_are_unit_vectors_and_directions_are_given() -> None:
    gradient = np.arange(6.0).reshape(2, 3)
    each = Probes((2, 3))
    assert len(each) == 6
    assert each.index(4) == (1, 1)
    assert (each[4] * gradient).sum() == 4
    np.testing.assert_array_equal(each.along(gradient), np.arange(6.0))
    some = Probes((2, 3), np.stack([gradient, -gradient]))
    assert (len(some), some.index(1)) == (2, (1,))
    np.testing.assert_array_equal(some.along(gradient), [55, -55])


def test_a_step_keeps_the_sign_of_each_coordinate() -> None:
    value = np.array([1e-9, -4.0, 0.0])
    assert typical(value) == pytest.approx(2, rel=1e-8)
    np.testing.assert_allclose(magnitudes(value), [1e-9, 4, 2])
    assert typical(np.zeros(3)) == 1
    assert Probes((3,)).scales(value)[0] == pytest.approx((1e-9, 2))
    unit, small = Probes((3,), np.array([[2.0, 1.0, 5.0]])).scales(value)[0]
    assert (unit, small) == pytest.approx((1, 5e-10))
