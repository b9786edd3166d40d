"""The oracles: how accurate each is, and that its error estimate is right."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinygpt_np.gradcheck.oracles import (
    EPS,
    Curve,
    Estimate,
    Taylor,
    central_difference,
    complex_step,
    richardson,
)
from tinygpt_np.gradcheck.verdict import SLOPE_BOUND

Function = Callable[[Any], Any]
# Functions with their derivatives.
FUNCTIONS: dict[str, tuple[Function, Function]] = {
    "exp": (np.exp, np.exp),
    "tanh": (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "rational": (lambda x: x / (1 + x * x), lambda x: (1 - x * x) / (1 + x * x) ** 2),
}
POINTS = 2 * np.random.default_rng(0).standard_normal(20)
every_function = pytest.mark.parametrize("name", FUNCTIONS)


def along(function: Function, x: float) -> Curve:
    return lambda t: function(x + t)


def test_the_complex_step_is_exact_to_rounding_at_every_scale() -> None:
    for x in (-600.0, -1e-5, 1e-8, 0.9, 600.0):
        value = complex_step(lambda t, x=x: np.exp(x + t) + 1 / (x + t)).value
        assert value == pytest.approx(np.exp(x) - 1 / x**2, rel=4 * EPS, abs=0)


@every_function
@pytest.mark.parametrize(("oracle", "largest"), [(central_difference, 1e-8), (richardson, 1e-11)])
def test_an_oracle_is_as_accurate_as_its_docstring_and_its_estimate_say(
    oracle: Callable[[Curve], Estimate], largest: float, name: str
) -> None:
    function, derivative = FUNCTIONS[name]
    for x in POINTS:
        estimate = oracle(along(function, x))
        size = max(abs(estimate.value), abs(float(function(x))), 1.0)
        error = abs(estimate.value - float(derivative(x)))
        assert error < largest * size
        # The estimate is right within a factor, because rounding is random; a verdict allows more.
        assert error <= 4 * estimate.error
        assert estimate.error < 100 * largest * size


def test_the_error_of_a_difference_includes_rounding_the_first_lost_term_and_roughness() -> None:
    for oracle in (central_difference, richardson):
        estimate = oracle(lambda t: 1e9 + np.sin(1 + t))
        assert estimate.error > EPS * 1e9
        assert abs(estimate.value - math.cos(1)) < 4 * estimate.error
    # The derivative is 0, and the difference is h² times the third derivative over 6.
    found = central_difference(lambda t: 1e3 * t**3)
    assert 0 < found.value <= found.error * (1 + 1e-9)
    # The difference at 2h has the error s = 1e-6 / 4h, and its extrapolation 4/3 s; that error of
    # the loss also applies to the step 0.05, whose estimate is chosen.
    last = 0.2 / 2**16
    found = richardson(lambda t: t + (1e-6 if t == 2 * last else 0.0))
    assert found.error == pytest.approx(4 / 3 * 1e-6 / 2 / 0.05, rel=0.02)


def test_richardson_ignores_steps_outside_the_domain() -> None:
    # The first steps lead below zero.
    assert richardson(along(np.log, 0.03)).value == pytest.approx(1 / 0.03, rel=1e-10)
    nowhere = richardson(along(np.log, -1.0))
    assert math.isnan(nowhere.value)
    assert math.isinf(nowhere.error)


@every_function
@pytest.mark.parametrize(("error", "expected"), [(0.0, 2), (-2.0, 1), (1e-4, 1)])
def test_the_remainder_falls_as_the_square_of_the_step_or_as_the_step_if_it_is_wrong(
    name: str, error: float, expected: float
) -> None:
    function, derivative = FUNCTIONS[name]
    slope = Taylor.sample(along(function, 0.7)).slope(float(derivative(0.7)) * (1 + error))
    assert slope == pytest.approx(expected, abs=0.02 if error else 1e-3)


def test_only_an_error_above_the_slack_is_a_remainder() -> None:
    taylor = Taylor.sample(lambda t: 3 + 2 * t)
    assert taylor.slope(2.0) == math.inf
    assert taylor.slope(2 + 1e-7) == pytest.approx(1, abs=1e-3)
    assert taylor.slope(2 + 1e-7, slack=2e-7) == math.inf


def test_the_slope_is_the_typical_one_of_the_smallest_steps() -> None:
    # h² - 64 h³ is 0 at h = 1/64, a step of the test just above the rounding level.
    assert Taylor.sample(lambda t: 1e7 + t * t - 64 * t * t * t).slope(0.0) > SLOPE_BOUND

    def jumping(t: float) -> Any:
        return t * (1 - 0.5 * (-1) ** round(math.log2(t))) if t else 0.0

    assert Taylor.sample(jumping).slope(0.0) < SLOPE_BOUND


@pytest.mark.parametrize("distance", [1e-5, 0.01, 0.2])
def test_a_kink_nearby_does_not_hide_the_taylor_slope(distance: float) -> None:
    taylor = Taylor.sample(lambda t: 3 * t + 5 * np.maximum(np.real(t) - distance, 0))
    assert taylor.slope(3.0) == math.inf
    # A wrong derivative is found before and after the steps that cross the kink.
    for error in (1e-6, 1e-3, -0.1, 2.0):
        assert taylor.slope(3 + error) < SLOPE_BOUND


def test_the_slope_ignores_steps_outside_the_domain() -> None:
    taylor = Taylor.sample(lambda t: np.log(0.01 - t))
    assert taylor.slope(-100.0) == pytest.approx(2, abs=1e-2)
    assert taylor.slope(-101.0) == pytest.approx(1, abs=1e-2)
    assert math.isnan(Taylor.sample(lambda t: np.sqrt(0.0 * t - t)).slope(0.0))
