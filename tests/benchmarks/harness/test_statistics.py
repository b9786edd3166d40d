"""Medians, their intervals, and ratios within rounds."""

import pytest

from benchmarks.harness.statistics import estimate, ratio


def test_a_ratio_is_the_median_over_the_rounds_in_which_both_took_a_turn() -> None:
    # The machine slows down tenfold: within each round theirs takes twice as long.
    theirs, ours = (
        [[2.0, 9.0, 1.0], [6.0], [20.0], None, [1.0]],
        [[1.0], [3.0], [10.0], [1.0], None],
    )
    found = ratio(theirs, ours)
    assert found is not None
    assert found[:3] == (2.0, 2.0, 2.0)
    assert ratio([[1.0], None], [None, [1.0]]) is None


@pytest.mark.parametrize(
    ("count", "low", "high", "coverage"),
    # As in tables of the sign test; few values give their range and what it covers.
    [(1, 0, 0, 0.0), (3, 0, 2, 0.75), (5, 0, 4, 0.9375), (6, 0, 5, 0.96875), (8, 0, 7, None),
     (9, 1, 7, None), (15, 3, 11, None), (20, 5, 14, None)],
)  # fmt: skip
def test_the_interval_is_that_of_the_sign_test(
    count: int, low: int, high: int, coverage: float | None
) -> None:
    found = estimate([float(value) for value in reversed(range(count))])
    assert (found.low, found.high) == (low, high)
    assert found.coverage == coverage if coverage is not None else found.coverage >= 0.95
