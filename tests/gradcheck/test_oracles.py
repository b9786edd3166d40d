"""The oracles: how far each is off, and that it knows it."""

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
    difference,
    richardson,
)
from tinygpt_np.gradcheck.verdict import SLOPE_BOUND

Function = Callable[[Any], Any]
# Functions with their derivatives.
FUNCTIONS: dict[str, tuple[Function, Function]] = {
    "exp": (np.exp, np.exp),
    "sin": (np.sin, np.cos),
    "tanh": (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "rational": (lambda x: x / (1 + x * x), lambda x: (1 - x * x) / (1 + x * x) ** 2),
    "cube": (lambda x: x * x * x, lambda x: 3 * x * x),
}
EXACT: dict[str, tuple[Function, Function]] = {
    "exp": (np.exp, np.exp),
    "sin": (np.sin, np.cos),
    "inverse": (lambda x: 1 / x, lambda x: -1 / x**2),
}
POINTS = 2 * np.random.default_rng(0).standard_normal(50)
SCALES = (-600.0, -30.0, -1e-5, 1e-8, 0.9, 30.0, 600.0)
every_function = pytest.mark.parametrize("name", FUNCTIONS)


def along(function: Function, x: float) -> Curve:
    return lambda t: function(x + t)


def errors(oracle: Callable[[Curve], Estimate], name: str) -> list[tuple[float, Estimate]]:
    """How far an oracle is off at each point, beside what it says."""
    function, derivative = FUNCTIONS[name]
    estimates = [(oracle(along(function, x)), float(derivative(x))) for x in POINTS]
    return [(abs(estimate.value - right), estimate) for estimate, right in estimates]


@pytest.mark.parametrize("x", SCALES)
@pytest.mark.parametrize("name", EXACT)
def test_the_complex_step_is_exact_to_rounding_at_every_scale(name: str, x: float) -> None:
    function, derivative = EXACT[name]
    estimate = complex_step(along(function, x))
    assert estimate.value == pytest.approx(derivative(x), rel=2 * EPS, abs=0)
    assert estimate.error == 0


def test_beside_a_huge_constant_the_complex_step_loses_nothing() -> None:
    assert complex_step(lambda t: 1e16 + np.sin(1 + t)).value == pytest.approx(math.cos(1), rel=EPS)


@every_function
def test_the_error_of_central_differences_falls_as_the_square_of_the_step(name: str) -> None:
    function, derivative = FUNCTIONS[name]
    wide, narrow = (
        abs(difference(along(function, 0.7), h)[0] - derivative(0.7)) for h in (0.01, 0.005)
    )
    assert wide / narrow == pytest.approx(4, rel=0.01)


@every_function
@pytest.mark.parametrize("oracle", [central_difference, richardson])
def test_an_oracle_knows_how_far_off_it_is(oracle: Callable[[Curve], Estimate], name: str) -> None:
    # Rounding has no last word, so the estimate is right within a factor; a verdict allows more.
    assert all(error <= 4 * estimate.error for error, estimate in errors(oracle, name))


@every_function
@pytest.mark.parametrize(("oracle", "largest"), [(central_difference, 1e-8), (richardson, 1e-11)])
def test_an_oracle_is_as_near_as_its_docstring_says(
    oracle: Callable[[Curve], Estimate], largest: float, name: str
) -> None:
    function, _ = FUNCTIONS[name]
    for (error, estimate), x in zip(errors(oracle, name), POINTS, strict=True):
        size = max(abs(estimate.value), abs(float(function(x))), 1.0)
        assert error < largest * size
        assert estimate.error < 100 * largest * size


def test_rounding_of_a_large_loss_is_in_the_error_of_a_difference() -> None:
    for oracle in (central_difference, richardson):
        estimate = oracle(lambda t: 1e9 + np.sin(1 + t))
        assert estimate.error > EPS * 1e9
        assert abs(estimate.value - math.cos(1)) < 4 * estimate.error


def test_richardson_looks_away_from_where_forward_is_not_defined() -> None:
    # Its first steps lead below zero.
    estimate = richardson(along(np.log, 0.03))
    assert estimate.value == pytest.approx(1 / 0.03, rel=1e-10)


def test_a_forward_that_is_nowhere_defined_gives_no_derivative() -> None:
    estimate = richardson(along(np.log, -1.0))
    assert math.isnan(estimate.value)
    assert math.isinf(estimate.error)


@every_function
def test_the_remainder_of_a_right_derivative_falls_as_the_square_of_the_step(name: str) -> None:
    function, derivative = FUNCTIONS[name]
    slope = Taylor.sample(along(function, 0.7)).slope(float(derivative(0.7)))
    assert slope == pytest.approx(2, abs=1e-3)


@every_function
@pytest.mark.parametrize("wrong", [-2.0, 0.5, 1e-2, -1e-3, 1e-4])
def test_the_remainder_of_a_wrong_derivative_falls_as_the_step(name: str, wrong: float) -> None:
    function, derivative = FUNCTIONS[name]
    slope = Taylor.sample(along(function, 0.7)).slope(float(derivative(0.7)) * (1 + wrong))
    assert slope == pytest.approx(1, abs=0.02)


@every_function
def test_an_error_of_less_than_a_millionth_is_not_seen_by_the_slope(name: str) -> None:
    function, derivative = FUNCTIONS[name]
    taylor = Taylor.sample(along(function, 0.7))
    assert taylor.slope(float(derivative(0.7)) * (1 + 1e-7)) > 1.9


def test_a_straight_line_leaves_no_remainder() -> None:
    taylor = Taylor.sample(lambda t: 3 + 2 * t)
    assert taylor.slope(2.0) == math.inf
    assert taylor.slope(2.001) == pytest.approx(1, abs=1e-3)


def test_where_the_second_derivative_vanishes_the_slope_is_three() -> None:
    assert Taylor.sample(along(np.sin, 0.0)).slope(1.0) == pytest.approx(3, abs=1e-3)


def test_a_step_where_the_terms_of_a_right_one_cancel_does_not_bend_the_slope() -> None:
    # h² - 64 h³ is 0 at h = 1/64, a step of the test, just above rounding here.
    taylor = Taylor.sample(lambda t: 1e7 + t * t - 64 * t * t * t)
    assert taylor.slope(0.0) > 1.5


def test_what_rounding_may_do_to_a_derivative_is_no_remainder() -> None:
    taylor = Taylor.sample(lambda t: 3 + 2 * t)
    assert taylor.slope(2 + 1e-7) == pytest.approx(1, abs=1e-3)
    assert taylor.slope(2 + 1e-7, slack=2e-7) == math.inf


def test_the_slope_is_taken_where_forward_is_defined() -> None:
    taylor = Taylor.sample(lambda t: np.log(0.01 - t))
    assert taylor.slope(-100.0) == pytest.approx(2, abs=1e-2)
    assert taylor.slope(-101.0) == pytest.approx(1, abs=1e-2)


def test_without_a_step_that_forward_takes_there_is_no_slope() -> None:
    assert math.isnan(Taylor.sample(lambda t: np.sqrt(0.0 * t - t)).slope(0.0))


def test_the_error_of_a_central_difference_is_no_less_than_its_first_lost_term() -> None:
    # The derivative is 0, and all of the difference is h² times the third one over 6.
    found = central_difference(lambda t: 1e3 * t**3)
    assert 0 < found.value <= found.error * (1 + 1e-9)


def test_richardson_counts_the_roughness_at_one_of_its_last_steps() -> None:
    last = 0.2 / 2**16

    def curve(t: float) -> float:
        return t + (1e-6 if t == 2 * last else 0.0)

    # The last but one difference is off by s = 1e-6 / 4h, its extrapolation by 4/3 s, and the one
    # at 0.05, where the smallest error is, by as much of the loss.
    roughness = 4 / 3 * 1e-6 / (4 * last) * 2 * last
    assert richardson(curve).error == pytest.approx(roughness / 0.05, rel=0.02)


def test_a_wrong_derivative_whose_remainder_jumps_is_not_called_right() -> None:
    def curve(t: float) -> float:
        return t * (1 - 0.5 * (-1) ** round(math.log2(t))) if t else 0.0

    assert Taylor.sample(curve).slope(0.0) < SLOPE_BOUND
