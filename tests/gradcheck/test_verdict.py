"""Comparing a gradient with its measurement: the verdict."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tinygpt_np.gradcheck.measure import Measurement, Probes
from tinygpt_np.gradcheck.oracles import Taylor
from tinygpt_np.gradcheck.report import Row
from tinygpt_np.gradcheck.verdict import compare

EXPECTED: np.ndarray = np.array([[1.0, -2.0, 3.0], [100.0, 0.001, -0.5]])
NOTHING = np.zeros(6)
MEASUREMENT = replace(
    Measurement.exact("x", Probes((2, 3)), "complex", EXPECTED.reshape(-1), 1e-13, 1e-12, 1.0),
    roundings=10.0,
)


def at(place: tuple[int, int], error: float) -> np.ndarray:
    gradient = EXPECTED.copy()
    gradient[place] += error
    return gradient


def row(gradient: Any, measured: Measurement = MEASUREMENT) -> Row:
    return compare(measured, gradient, np.dtype(np.float64), [2, 3])


def test_a_small_error_everywhere_is_detected_in_the_norm() -> None:
    bound, size = row(EXPECTED).bound, float(np.linalg.norm(EXPECTED))
    assert bound == pytest.approx(1e-12 + 1e-13 * 6**0.5 / size, rel=1e-9, abs=0)
    assert row(EXPECTED * (1 + 0.99 * bound)).verdict == "ok"
    found = row(EXPECTED * (1 + 1e-11))
    assert found.problems == ("off by 1e-11 of its norm",)
    assert found.relative == pytest.approx(1e-11, rel=1e-3)


def test_a_small_element_among_large_ones_is_checked_on_its_own() -> None:
    # 4e-12 is below the tolerance for the norm, which is 100, but four billionths of the element.
    found = row(at((1, 1), 4e-12))
    assert found.problems == ("off in 1 of 6 places by more than rounding explains",)
    assert (found.index, found.relative < 1e-13) == ((1, 1), True)
    small = row(at((1, 1), 2e-14))
    assert row(at((1, 1), 0.99 * small.headroom * 2e-14)).ok
    assert not row(at((1, 1), 1.01 * small.headroom * 2e-14)).ok


def test_an_element_may_have_the_error_of_rounding_and_of_the_oracle() -> None:
    assert row(at((1, 1), 9e-14)).ok
    rough = replace(MEASUREMENT, errors=np.where(np.arange(6) == 4, 1e-12, 0.0))
    assert row(at((1, 1), 8e-12), rough).ok
    assert not row(at((1, 1), 1.2e-11), rough).ok
    assert not row(at((0, 0), 8e-12), rough).ok


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
    zero = replace(MEASUREMENT, values=NOTHING)
    found = row(np.full((2, 3), 9e-14), zero)
    assert (found.verdict, found.bound) == ("zero", 1e-13)
    assert math.isnan(found.relative)
    assert not row(at((1, 1), 1e-9) - EXPECTED, zero).ok
    rounding = replace(MEASUREMENT, values=np.full(6, 5e-14))
    assert row(np.full((2, 3), -4e-14), rounding).verdict == "zero"
    assert row(np.full((2, 3), 1e-3), rounding).cause.startswith("it should be zero")
    exact = replace(zero, floor=0.0)
    assert row(np.zeros((2, 3)), exact).verdict == "zero"
    with np.errstate(all="raise"):
        assert row(np.full((2, 3), 1e3), exact).verdict == "wrong"


def test_a_kink_is_skipped_and_the_other_elements_are_checked() -> None:
    kinks = np.isin(np.arange(6), (0, 4))
    kinked = replace(MEASUREMENT, kinks=kinks, values=np.where(kinks, 77.0, MEASUREMENT.values))
    found = row(EXPECTED, kinked)
    assert (found.verdict, found.checked, found.skipped) == ("ok", 4, 2)
    found = row(at((0, 2), 1e-9), kinked)
    assert (found.verdict, found.index) == ("wrong", (0, 2))
    found = row(EXPECTED, replace(MEASUREMENT, kinks=np.ones(6, bool)))
    assert (found.problems, found.cause) == (("nothing could be checked",), "")


def test_a_derivative_that_the_oracle_cannot_resolve_is_wrong() -> None:
    rough = replace(MEASUREMENT, errors=np.where(np.arange(6) == 3, 1e-6, 0.0))
    found = row(EXPECTED, rough)
    assert (found.checked, found.cause) == (5, "")
    assert "1 of 6 derivatives could not be measured to 1e-12, the first at (1, 0)" in str(found)
    assert any("norm" in problem for problem in row(at((0, 0), 0.5), rough).problems)
    found = row(EXPECTED, replace(MEASUREMENT, values=np.full(6, math.nan)))
    assert found.problems[-1] == "nothing could be checked"


def sloped(gradient: float, *curves: Callable[[float], float]) -> Row:
    """Compare a gradient with one direction a curve; the derivative of each is 2."""
    probes = Probes((2, 3), np.ones((len(curves), 2, 3)) / 6)
    exact = Measurement.exact("x", probes, "taylor", np.zeros(len(curves)), 1e-13, 1e-12)
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
