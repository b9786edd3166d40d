"""Medians with confidence intervals, and ratios within rounds.

A shared machine is faster in one minute than in the next. Candidates that take turns within
seconds see the same conditions, so the ratio of two candidates is taken in each round; its median
counts.
"""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

# For each round the seconds of the samples of a turn; None for a turn that was not taken.
Rounds = Sequence[Sequence[float] | None]


class Interval(NamedTuple):
    """A median, and an interval that contains the true median with probability `coverage`."""

    median: float
    low: float
    high: float
    coverage: float


def estimate(values: Sequence[float], coverage: float = 0.95) -> Interval:
    """Return the median of independent values and the narrowest interval that covers enough.

    The interval is from the k-th lowest to the k-th highest value; where no k covers enough, it is
    the range. Each value is below the true median with probability 1/2, so the number of these is
    binomial whatever the distribution. Six values are needed for 95 %.
    """
    ordered, n = sorted(values), len(values)
    # outside: the probability that the true median is not in the interval.
    cut, outside = 0, 2.0 ** (1 - n)
    while cut + 1 < n / 2:
        wider = outside + 2 * math.comb(n, cut + 1) * 0.5**n
        if 1 - wider < coverage:
            break
        cut, outside = cut + 1, wider
    return Interval(statistics.median(ordered), ordered[cut], ordered[n - 1 - cut], 1 - outside)


def medians(rounds: Rounds) -> list[float]:
    """Return the median of each turn that was taken."""
    return [statistics.median(turn) for turn in rounds if turn]


def ratio(theirs: Rounds, ours: Rounds) -> Interval | None:
    """Return their time divided by ours, from the rounds in which both took a turn."""
    pairs = [(a, b) for a, b in zip(theirs, ours, strict=True) if a and b]
    if not pairs:
        return None
    return estimate([statistics.median(a) / statistics.median(b) for a, b in pairs])
