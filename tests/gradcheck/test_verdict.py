# pyright: basic
"""Comparing a gradient with its measurement: the verdict."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tinygpt_np.gradcheck.measure import Group, Measurement
from tinygpt_np.gradcheck.oracles import EPS, Taylor
from tinygpt_np.gradcheck.probes import Probes
from tinygpt_np.gradcheck.report import Row
from tinygpt_np.gradcheck.rounding import FACTOR, Rounding, noisy_view
from tinygpt_np.gradcheck.verdict import UNCERTAINTY, compare

EXPECTED: np.ndarray = np.array([[1.0, -2.0, 3.0], [100.0, 0.001, -0.5]])
NOTHING, FLOAT64 = np.zeros(6), np.dtype(np.float64)
MEASUREMENT = replace(
    Measurement.exact("x", Probes((2, 3)), "complex", EXPECTED.reshape(-1), EPS, 1.0),
    rounding=lambda number: 10.0,
)
FLOOR = FACTOR * 10 * EPS


def at(place: tuple[int, int], error: float) -> np.ndarray:
    gradient = EXPECTED.copy()
    gradient[place] += error
    return gradient


def backward_with(sensitivity: float) -> Rounding:
    """Return the rounding of a backward all of whose elements have this sensitivity."""
    return Rounding(lambda: {"x": noisy_view(np.full((2, 3), sensitivity)) * 1.0})


EXACT_BACKWARD = backward_with(1e-20)


def row(
    gradient: Any, measured: Measurement = MEASUREMENT, rounding: Rounding | None = EXACT_BACKWARD
) -> Row:
    return compare(measured, {"x": gradient}, FLOAT64, [2, 3], rounding)


def test_a_small_error_everywhere_is_detected_in_the_norm() -> None:
    assert row(EXPECTED * (1 + 0.99e-12)).verdict == "ok"
    found = row(EXPECTED * (1 + 1e-10))
    assert found.problems == ("off by 1e-10 of its norm",)
    assert found.relative == pytest.approx(1e-10, rel=1e-3)


def test_a_small_element_among_large_ones_is_checked_on_its_own() -> None:
    # 4e-12 is below the tolerance for the norm, which is 100, but four billionths of the element.
    found = row(at((1, 1), 4e-12))
    assert found.problems == ("off in 1 of 6 places by more than rounding explains",)
    assert (found.index, found.relative < 1e-13) == ((1, 1), True)
    small = row(at((1, 1), 2e-16))
    assert row(at((1, 1), 0.99 * small.headroom * 2e-16)).headroom > 1
    assert not row(at((1, 1), 1e-15 + FLOOR)).ok


def test_an_element_may_have_the_error_of_rounding_and_of_the_oracle() -> None:
    assert row(at((1, 1), FLOOR)).ok
    rough = replace(MEASUREMENT, errors=np.where(np.arange(6) == 4, 1e-12, 0.0))
    assert row(at((1, 1), 0.9e-12 * UNCERTAINTY), rough).ok
    assert not row(at((1, 1), 1.1e-12 * UNCERTAINTY), rough).ok
    assert not row(at((0, 0), 0.9e-12 * UNCERTAINTY), rough).ok


def test_a_backward_may_have_the_rounding_error_of_its_own_operations() -> None:
    error = 1e5 * EPS
    assert not row(at((1, 1), error)).ok
    assert not row(at((1, 1), error), rounding=backward_with(1e2)).ok
    assert row(at((1, 1), error), rounding=backward_with(1e5)).ok
    # The rounding of the oracle is that of float64, also for a gradient in float32.
    single = replace(MEASUREMENT, eps=float(np.finfo("float32").eps))
    assert row(at((1, 1), 1e-6), single, backward_with(10)).ok
    assert not row(at((1, 1), 1e-6), single).ok


def test_an_unknown_backward_may_add_numbers_as_large_as_the_largest_element() -> None:
    for error, verdict in ((100 * EPS, "ok"), (1e4 * EPS, "wrong")):
        assert row(at((1, 1), error), rounding=None).verdict == verdict


def test_what_rounding_may_change_by_a_fraction_of_the_gradient_is_not_measured() -> None:
    for places in (EXPECTED + 0.3, EXPECTED - 1e3):
        found = row(places, rounding=backward_with(1e30))
        assert (found.verdict, found.ok) == ("wrong", False)
    rough = replace(MEASUREMENT, rounding=lambda number: 1e30)
    for gradient in (EXPECTED + 0.3, EXPECTED - 1e3, EXPECTED * 0):
        found = row(gradient, rough)
        assert (found.verdict, found.ok, found.problems) == ("unmeasured", False, ())
        assert "6 of 6 places could not be measured: rounding explains" in found.messages[0]
    # An error of rounding size is excused without a measurement.
    assert row(EXPECTED * (1 + EPS), rough).verdict == "ok"


@pytest.mark.parametrize(
    ("gradient", "problem"),
    [
        (None, "there is no gradient"),
        (2.0, "the gradient must be an array, not float"),
        (EXPECTED[0], r"the shape must be (2, 3), not (3,)"),
        (EXPECTED.T, "the shape must be (2, 3), not (3, 2); it looks transposed"),
        (EXPECTED.astype(np.float32), "the dtype must be float64, not float32"),
        (at((1, 2), math.nan), "not finite: nan at (1, 2)"),
        (at((0, 1), math.inf), "not finite: inf at (0, 1)"),
    ],
)
def test_an_unusable_gradient_is_described(gradient: Any, problem: str) -> None:
    assert row(gradient).problems == (problem,)


def test_a_gradient_of_zero_or_of_rounding_alone_may_be_off_by_rounding_alone() -> None:
    zero = replace(MEASUREMENT, values=NOTHING, usual=NOTHING[None])
    found = row(np.full((2, 3), 0.9 * FLOOR), zero)
    assert (found.verdict, found.bound) == ("zero", pytest.approx(FLOOR))
    assert math.isnan(found.relative)
    assert not row(at((1, 1), 1e-9) - EXPECTED, zero).ok
    small = np.full(6, FLOOR / 2)
    rounding = replace(MEASUREMENT, values=small, usual=small[None])
    assert row(np.full((2, 3), -0.4 * FLOOR), rounding).verdict == "zero"
    assert row(np.full((2, 3), 1e-3), rounding).cause.startswith("it should be zero")
    exact = replace(zero, rounding=lambda number: 0.0)
    assert row(np.zeros((2, 3)), exact).verdict == "zero"
    with np.errstate(all="raise"):
        assert row(np.full((2, 3), 1e3), exact).verdict == "wrong"


KINKS = np.isin(np.arange(6), (0, 4))
KINKED = replace(
    MEASUREMENT,
    kinks=KINKS,
    usual=np.where(KINKS, np.array([[-2.0], [6.0], [2.0], [0.0]]), MEASUREMENT.values),
    low=np.where(KINKS, -2.0, MEASUREMENT.values),
    high=np.where(KINKS, 6.0, MEASUREMENT.values),
    values=np.where(KINKS, 2.0, MEASUREMENT.values),
)


def with_kinks(first: float, second: float) -> np.ndarray:
    return np.where(KINKS, [first, 0, 0, 0, second, 0], MEASUREMENT.values).reshape(2, 3)


def test_at_a_kink_the_usual_gradients_are_right() -> None:
    for value in (-2.0, 6.0, 2.0, 0.0, 6 * (1 + 1e-15)):
        found = row(with_kinks(value, 6.0), KINKED)
        assert (found.verdict, found.checked, found.skipped) == ("ok", 4, 2)


def test_at_a_kink_another_gradient_is_wrong_or_not_measured() -> None:
    for value in (-2.1, 6.001, 1e3):
        found = row(with_kinks(-2.0, value), KINKED)
        assert (found.verdict, found.index) == ("wrong", (1, 1))
    found = row(with_kinks(1.0, 5.0), KINKED)
    assert (found.verdict, found.ok) == ("unmeasured", False)
    assert "2 of 6 places could not be measured: they are at a kink" in str(found)
    assert row(at((0, 2), 1e-9) * ~KINKS.reshape(2, 3), KINKED).verdict == "wrong"


def test_equal_elements_at_kinks_share_a_gradient_that_adds_up() -> None:
    group = Group({"x": np.array([0]), "y": np.array([1])}, 6.0, 1e-12)
    measured = replace(KINKED, groups=(group,))

    def together(x: float, y: Any) -> Row:
        gradients = {"x": with_kinks(x, 6.0), "y": y}
        return compare(measured, gradients, FLOAT64, [2, 3])

    assert together(5.0, np.array([0.0, 1.0])).verdict == "ok"
    assert together(6.0, np.array([0.0, 0.0])).verdict == "ok"
    found = together(6.0, np.array([0.0, 6.0]))
    assert found.problems == (
        "at ties: the gradients of 2 equal elements must add up to 6, not 12",
    )
    # A share is not larger than the whole.
    wider = replace(measured, low=measured.low - 9, high=measured.high + 9)
    gradients = {"x": with_kinks(8.0, 6.0), "y": np.array([0.0, -2.0])}
    assert compare(wider, gradients, FLOAT64, [2, 3]).verdict == "unmeasured"
    # Without the other gradient, the sum is unknown.
    assert together(5.0, None).verdict == "unmeasured"
    assert together(6.0, None).verdict == "ok"


def test_a_derivative_that_the_oracle_cannot_resolve_is_not_measured() -> None:
    rough = replace(MEASUREMENT, errors=np.where(np.arange(6) == 3, 1e-3, 0.0))
    found = row(EXPECTED, rough)
    assert (found.verdict, found.checked, found.cause) == ("unmeasured", 5, "")
    assert "1 of 6 derivatives could not be measured to 1e-06, the first at (1, 0)" in str(found)
    assert any("norm" in problem for problem in row(at((0, 0), 0.5), rough).problems)
    found = row(EXPECTED, replace(MEASUREMENT, values=np.full(6, math.nan)))
    assert (found.verdict, found.ok) == ("unmeasured", False)


def sloped(gradient: float, *curves: Any) -> Row:
    """Compare a gradient with one direction a curve; the derivative of each is 2."""
    probes = Probes((2, 3), np.ones((len(curves), 2, 3)) / 6)
    exact = Measurement.exact("x", probes, "taylor", np.zeros(len(curves)), EPS)
    measured = replace(exact, taylor=tuple(map(Taylor.sample, curves)))
    return row(np.full((2, 3), gradient), measured)


def bent(t: float) -> float:
    return 5 + 2 * t + t * t


def unlucky(t: float) -> float:
    # Just above the rounding level h² and h³ cancel, so the slope there is arbitrary.
    return 1e7 + 2 * t + t * t - 33 * t * t * t


def test_the_slope_is_two_for_a_right_gradient_and_one_for_a_wrong_one() -> None:
    found = sloped(2.0, bent)
    assert found.relative == pytest.approx(2, abs=1e-3)
    assert (found.verdict, found.oracle, found.bound) == ("ok", "Taylor slope", 1.5)
    found = sloped(2.01, bent)
    assert found.problems == ("the remainder falls as h^1.00, not h²",)
    assert (found.analytic, found.numeric) == pytest.approx((2.01, 2), abs=1e-5)
    assert not sloped(2.0, lambda t: math.nan if t else 1.0).ok


def test_one_direction_alone_does_not_decide() -> None:
    assert not sloped(2.0, unlucky).ok
    assert sloped(2.0, bent, unlucky, bent).ok
    assert not sloped(2.1, bent, unlucky, bent).ok
