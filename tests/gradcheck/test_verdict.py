"""The verdict on a gradient, from what was measured; and what a report says of itself."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tinygpt_np.gradcheck.measure import Measurement, Probes
from tinygpt_np.gradcheck.oracles import Taylor
from tinygpt_np.gradcheck.report import Report, Row, finite
from tinygpt_np.gradcheck.verdict import compare

EXPECTED: np.ndarray = np.array([[1.0, -2.0, 3.0], [100.0, 0.001, -0.5]])
FLOAT64, FLOAT32 = np.dtype(np.float64), np.dtype(np.float32)
NOTHING = np.zeros(6)
MEASURED = Measurement(
    "x", Probes((2, 3)), "complex", EXPECTED.reshape(-1), NOTHING, NOTHING > 0,
    floor=1e-13, roundings=10.0, tolerance=1e-12, scale=1.0,
)  # fmt: skip


def at(place: tuple[int, int], error: float) -> np.ndarray:
    """The right gradient, but for one element."""
    gradient = EXPECTED.copy()
    gradient[place] += error
    return gradient


def row(gradient: Any, measured: Measurement = MEASURED, dtype: Any = FLOAT64) -> Row:
    return compare(measured, gradient, dtype, [2, 3])


def zero(floor: float = 1e-13) -> Measurement:
    return replace(MEASURED, values=NOTHING, floor=floor)


def test_the_right_gradient_is_ok() -> None:
    found = row(EXPECTED)
    assert found.ok
    assert (found.verdict, found.problems, found.cause) == ("ok", (), "")
    assert (found.checked, found.skipped, found.shape) == (6, 0, (2, 3))


def test_a_small_error_all_over_is_seen_in_the_norm() -> None:
    assert row(EXPECTED * (1 + 9e-13)).ok
    found = row(EXPECTED * (1 + 1e-11))
    assert found.problems == ("off by 1e-11 of its norm",)
    barely = row(EXPECTED * (1 + 1.5e-12), replace(MEASURED, floor=0.0))
    assert barely.problems == ("off by 1.5e-12 of its norm",)
    assert found.relative == pytest.approx(1e-11, rel=1e-3)


def test_the_bound_is_the_tolerance_and_what_is_uncertain_beside_the_norm() -> None:
    rough = replace(MEASURED, floor=1e-11)
    uncertain = 1e-11 * 6**0.5 / float(np.linalg.norm(EXPECTED))
    assert row(EXPECTED, rough).bound == pytest.approx(1e-12 + uncertain, rel=1e-9, abs=0)


def test_a_small_element_among_large_ones_is_held_to_what_rounding_explains() -> None:
    # 4e-12 is less than a tolerance of the norm, which is 100, but four billionths of the element.
    found = row(at((1, 1), 4e-12))
    assert found.problems == ("off in 1 of 6 places by more than rounding explains",)
    assert found.index == (1, 1)
    assert found.relative < 1e-13


def test_an_element_may_be_off_by_the_floor() -> None:
    assert row(at((1, 1), 9e-14)).ok
    assert not row(at((1, 1), 2e-13)).ok


def test_an_element_may_be_off_by_what_the_oracle_is() -> None:
    errors = np.where(np.arange(6) == 4, 1e-12, 0.0)
    rough = replace(MEASURED, errors=errors)
    assert row(at((1, 1), 8e-12), rough).ok
    assert not row(at((1, 1), 1.2e-11), rough).ok
    assert not row(at((0, 0), 8e-12), rough).ok


def test_the_worst_place_is_shown_with_both_numbers() -> None:
    found = row(at((0, 2), 0.25))
    assert (found.index, found.analytic, found.numeric, found.absolute) == ((0, 2), 3.25, 3, 0.25)


def test_the_bound_is_what_passes() -> None:
    bound = row(EXPECTED).bound
    size = float(np.linalg.norm(EXPECTED))
    direction = EXPECTED / size
    assert row(EXPECTED + 0.99 * bound * size * direction).ok
    assert row(EXPECTED + 1.01 * bound * size * direction).problems


def test_headroom_is_how_many_times_larger_an_error_could_be() -> None:
    error = row(at((1, 1), 2e-14))
    assert row(at((1, 1), 0.99 * error.headroom * 2e-14)).ok
    assert not row(at((1, 1), 1.01 * error.headroom * 2e-14)).ok


@pytest.mark.parametrize(
    ("gradient", "problem"),
    [
        (None, "there is no gradient"),
        (2.0, "the gradient must be an array, not float"),
        ([1.0], "the gradient must be an array, not list"),
        (EXPECTED[0], r"the shape must be (2, 3), not (3,)"),
        (EXPECTED.T, "the shape must be (2, 3), not (3, 2); it looks transposed"),
        (EXPECTED.astype(np.float32), "the dtype must be float64, not float32"),
        (EXPECTED.astype(np.complex128), "the dtype must be float64, not complex128"),
        (at((1, 2), math.nan), "not finite: nan at (1, 2)"),
        (at((0, 1), math.inf), "not finite: inf at (0, 1)"),
        (at((0, 1), -math.inf), "not finite: -inf at (0, 1)"),
    ],
)
def test_what_is_no_gradient_at_all_says_what_it_is(gradient: Any, problem: str) -> None:
    found = row(gradient)
    assert found.problems == (problem,)
    assert found.verdict == "wrong"
    assert math.isnan(found.analytic)


def test_the_gradient_of_float32_must_be_float32() -> None:
    assert row(EXPECTED, dtype=FLOAT32).problems == ("the dtype must be float32, not float64",)


def test_all_zero_is_wrong() -> None:
    found = row(np.zeros((2, 3)))
    assert not found.ok
    assert found.cause.startswith("all zero")


def test_a_gradient_of_zero_may_be_off_by_rounding_alone() -> None:
    found = row(np.full((2, 3), 9e-14), zero())
    assert (found.verdict, found.bound) == ("zero", 1e-13)
    assert math.isnan(found.relative)
    assert not row(at((1, 1), 1e-9) - EXPECTED, zero()).ok


def test_a_gradient_that_must_be_exactly_zero_is_held_to_it() -> None:
    assert row(np.zeros((2, 3)), zero(floor=0.0)).verdict == "zero"
    with np.errstate(all="raise"):
        found = row(np.full((2, 3), 1e3), zero(floor=0.0))
    assert found.verdict == "wrong"
    assert found.cause.startswith("it should be zero")


def test_a_gradient_that_is_rounding_and_nothing_else_is_zero() -> None:
    noise = replace(MEASURED, values=np.full(6, 5e-14))
    assert row(np.full((2, 3), -4e-14), noise).verdict == "zero"
    assert row(np.full((2, 3), 1e-3), noise).cause.startswith("it should be zero")


# Places that cannot be told


def with_kinks(*places: int) -> Measurement:
    kinks = np.isin(np.arange(6), places)
    return replace(MEASURED, kinks=kinks, values=np.where(kinks, 77.0, MEASURED.values))


def test_a_kink_is_skipped_and_counted() -> None:
    found = row(EXPECTED, with_kinks(0, 4))
    assert (found.verdict, found.checked, found.skipped) == ("ok", 4, 2)


def test_a_kink_excuses_no_other_place() -> None:
    found = row(at((0, 2), 1e-9), with_kinks(0, 4))
    assert found.verdict == "wrong"
    assert found.index == (0, 2)


def test_with_nothing_but_kinks_nothing_was_checked() -> None:
    found = row(EXPECTED, with_kinks(*range(6)))
    assert found.problems == ("nothing could be checked",)
    assert found.cause == ""


def test_what_the_oracle_cannot_tell_is_never_right() -> None:
    rough = replace(MEASURED, errors=np.where(np.arange(6) == 3, 1e-6, 0.0))
    found = row(EXPECTED, rough)
    assert found.checked == 5
    assert found.problems[0].startswith(
        "1 of 6 derivatives could not be measured to 1e-12, the first at (1, 0)"
    )
    assert found.cause == ""


def test_what_is_not_finite_could_not_be_measured() -> None:
    found = row(EXPECTED, replace(MEASURED, values=np.full(6, math.nan)))
    assert found.problems[-1] == "nothing could be checked"


def test_one_place_that_cannot_be_told_does_not_hide_an_error_in_another() -> None:
    rough = replace(MEASURED, errors=np.where(np.arange(6) == 3, 1e-6, 0.0))
    assert any("norm" in problem for problem in row(at((0, 0), 0.5), rough).problems)


def test_along_directions_the_number_of_the_worst_is_shown() -> None:
    directions = np.random.default_rng(0).standard_normal((3, 2, 3))
    probes = Probes((2, 3), directions)
    nothing = np.zeros(3)
    measured = replace(
        MEASURED, probes=probes, values=probes.along(EXPECTED), errors=nothing, kinks=nothing > 0
    )
    assert row(EXPECTED, measured).verdict == "ok"
    found = row(at((0, 2), 0.25), measured)
    assert (found.verdict, found.by_element, found.checked) == ("wrong", False, 3)
    (worst,) = found.index
    assert found.numeric == pytest.approx(np.sum(EXPECTED * directions[worst]))
    assert found.absolute == pytest.approx(abs(0.25 * directions[worst, 0, 2]))


# The Taylor slope


def sloped(*curves: Any) -> Measurement:
    """One direction a curve; the derivative of each is 2."""
    directions = np.ones((len(curves), 2, 3)) / 6
    nothing = np.zeros(len(curves))
    return replace(
        MEASURED, probes=Probes((2, 3), directions), method="taylor", values=nothing,
        errors=nothing, kinks=nothing > 0, taylor=tuple(map(Taylor.sample, curves)),
    )  # fmt: skip


def bent(t: float) -> float:
    return 5 + 2 * t + t * t


def test_the_slope_of_a_right_gradient_is_two() -> None:
    found = row(np.full((2, 3), 2.0), sloped(bent))
    assert found.verdict == "ok"
    assert found.relative == pytest.approx(2, abs=1e-3)
    assert (found.oracle, found.bound) == ("Taylor slope", 1.5)


def test_the_slope_of_a_wrong_gradient_is_one() -> None:
    found = row(np.full((2, 3), 2.01), sloped(bent))
    assert found.problems == ("the remainder falls as h^1.00, not h²",)
    assert found.analytic == pytest.approx(2.01)
    assert found.numeric == pytest.approx(2, abs=1e-5)


def unlucky(t: float) -> float:
    # Just above rounding its h² vanishes beside its h³, so that the slope there is anything.
    return 1e7 + 2 * t + t * t - 33 * t * t * t


def test_one_direction_alone_accuses_nobody() -> None:
    assert not row(np.full((2, 3), 2.0), sloped(unlucky)).ok
    assert row(np.full((2, 3), 2.0), sloped(bent, unlucky, bent)).ok
    assert not row(np.full((2, 3), 2.1), sloped(bent, unlucky, bent)).ok


def test_a_slope_through_nothing_but_kinks_is_no_proof() -> None:
    measured = replace(sloped(bent), kinks=np.array([True]))
    assert row(np.full((2, 3), 2.0), measured).problems == ("nothing could be checked",)


def nowhere(t: float) -> float:
    return 1.0 if t == 0 else math.nan


def test_no_slope_is_no_proof() -> None:
    assert not row(np.full((2, 3), 2.0), sloped(nowhere)).ok


# Reports


def test_a_report_is_ok_if_every_row_is() -> None:
    right, wrong = row(EXPECTED), row(-EXPECTED)
    assert Report("r", (right, right), 0).ok
    assert not Report("r", (right, wrong), 0).ok


def test_a_report_of_nothing_is_not_ok() -> None:
    assert not Report("r", (), 0).ok


def test_the_worst_row_is_a_wrong_one_or_the_one_with_the_least_headroom() -> None:
    exact, near, wrong = row(EXPECTED), row(at((1, 1), 2e-14)), row(-EXPECTED)
    assert Report("r", (exact, near), 0).worst is near
    assert Report("r", (exact, near, wrong), 0).worst is wrong


def test_json_says_everything_and_has_null_for_what_is_no_number() -> None:
    report = Report("r", (row(EXPECTED), row(None)), 7, ("a note",))
    whole = json.loads(report.to_json(), parse_constant=lambda name: pytest.fail(name))
    assert (whole["title"], whole["ok"], whole["seed"], whole["notes"]) == (
        "r", False, 7, ["a note"],
    )  # fmt: skip
    right, missing = whole["rows"]
    assert right["name"] == "x"
    assert right["shape"] == [2, 3]
    assert right["verdict"] == "ok"
    assert missing["verdict"] == "wrong"
    assert missing["analytic"] is None
    assert missing["relative"] is None
    assert missing["problems"] == ["there is no gradient"]


def test_numbers_in_lists_and_dicts_become_null_too() -> None:
    assert finite({"a": [math.nan, (1, -math.inf)], "b": "nan"}) == {
        "a": [None, [1, None]],
        "b": "nan",
    }
