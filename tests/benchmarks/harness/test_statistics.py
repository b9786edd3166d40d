"""Medians, their intervals, and ratios within rounds."""

import math

import numpy as np
import pytest

from benchmarks.harness.statistics import estimate, medians, ratio


def test_a_ratio_pairs_the_turns_of_a_round() -> None:
    # The machine slows down tenfold: within each round theirs takes twice as long.
    found = ratio([[2.0], [6.0], [20.0]], [[1.0], [3.0], [10.0]])
    assert found is not None
    assert found[:3] == (2.0, 2.0, 2.0)


def test_only_rounds_in_which_both_took_a_turn_are_compared() -> None:
    found = ratio([[4.0], [6.0], None], [[2.0], [2.0], [9.0]])
    assert found is not None
    assert (found.low, found.high) == (2.0, 3.0)
    assert ratio([[1.0], None], [None, [1.0]]) is None


def test_a_turn_counts_as_its_median_sample() -> None:
    assert medians([[1.0, 9.0, 2.0], None]) == [2.0]


@pytest.mark.parametrize(
    ("count", "low", "high"), [(6, 0, 5), (8, 0, 7), (9, 1, 7), (15, 3, 11), (20, 5, 14)]
)
def test_the_interval_is_that_of_the_tables_of_the_sign_test(
    count: int, low: int, high: int
) -> None:
    found = estimate([float(value) for value in reversed(range(count))])
    assert (found.low, found.high) == (low, high)


@pytest.mark.parametrize(("count", "coverage"), [(1, 0.0), (3, 0.75), (5, 0.9375)])
def test_few_values_give_their_range_and_what_it_covers(count: int, coverage: float) -> None:
    found = estimate([float(value) for value in range(count)])
    assert found[1:] == (0, count - 1, coverage)


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).exponential(size=(4000, 11))
    found = [estimate([float(value) for value in row]) for row in draws]
    covered = sum(each.low <= math.log(2) <= each.high for each in found) / len(found)
    assert covered == pytest.approx(found[0].coverage, abs=0.012)
