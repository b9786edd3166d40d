"""Medians, their intervals, and ratios within rounds."""

import math

import numpy as np
import pytest

from benchmarks import summary


def test_the_ratio_pairs_the_turns_of_a_round() -> None:
    # A machine that slows down tenfold: within each round theirs takes twice as long.
    ours = [[1.0], [3.0], [10.0]]
    theirs = [[2.0], [6.0], [20.0]]
    ratio = summary.ratio(theirs, ours)
    assert (ratio.low, ratio.median, ratio.high) == (2.0, 2.0, 2.0)


def test_a_turn_counts_as_its_median_step() -> None:
    assert summary.of_rounds([[1.0, 9.0, 2.0]]) == [2.0]


def test_the_peak_is_of_the_fastest_step_of_each_round() -> None:
    assert summary.peak([[4.0, 2.0], [1.0, 5.0], [8.0, 9.0]], flops=10.0) == 5.0


@pytest.mark.parametrize(
    ("count", "low", "high"), [(6, 0, 5), (8, 0, 7), (9, 1, 7), (15, 3, 11), (20, 5, 14)]
)
def test_the_interval_is_that_of_the_tables_of_the_sign_test(
    count: int, low: int, high: int
) -> None:
    found = summary.estimate([float(value) for value in reversed(range(count))])
    assert (found.low, found.high) == (low, high)


@pytest.mark.parametrize(("count", "coverage"), [(1, 0.0), (3, 0.75), (5, 0.9375)])
def test_few_values_give_their_range_and_what_it_covers(count: int, coverage: float) -> None:
    found = summary.estimate([float(value) for value in range(count)])
    assert (found.low, found.high, found.coverage) == (0, count - 1, coverage)


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).exponential(size=(4000, 11))
    found = [summary.estimate([float(value) for value in row]) for row in draws]
    covered = sum(each.low <= math.log(2) <= each.high for each in found) / len(found)
    assert covered == pytest.approx(found[0].coverage, abs=0.012)
