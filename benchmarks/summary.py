"""What samples say: medians, and ratios that are taken within a round.

A shared machine is faster in one minute than in the next. Sides that take turns within seconds
share the minute, so the ratio of two sides is taken in each round, and of these the median.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

Turns = Sequence[Sequence[float]]  # of each round, the seconds of each step


@dataclass(frozen=True)
class Estimate:
    """A median, and an interval that holds the true one with a probability of `coverage`."""

    median: float
    low: float
    high: float
    coverage: float


def estimate(values: Sequence[float], coverage: float = 0.95) -> Estimate:
    """The median of independent values, and the narrowest interval that covers enough.

    It lies between the k-th lowest and the k-th highest; where no k covers enough, it is the range.

    Each value is below the true median with probability 1/2, so how many are is binomial, whatever
    the distribution. It takes six values for 95 %; what fewer cover is in `coverage`.
    """
    ordered, n = sorted(values), len(values)
    # outside: of the true median lying below the k-th lowest value, or above the k-th highest.
    cut, outside = 0, 2.0 ** (1 - n)
    while cut + 1 < n / 2:
        wider = outside + 2 * math.comb(n, cut + 1) * 0.5**n
        if 1 - wider < coverage:
            break
        cut, outside = cut + 1, wider
    low, high = ordered[cut], ordered[n - 1 - cut]
    return Estimate(statistics.median(ordered), low, high, 1 - outside)


def of_rounds(turns: Turns) -> list[float]:
    """The seconds of a step in each round: the median of its turn."""
    return [statistics.median(turn) for turn in turns]


def ratio(theirs: Turns, ours: Turns) -> Estimate:
    """Their seconds by ours, round by round: above 1, ours is the faster."""
    pairs = zip(of_rounds(theirs), of_rounds(ours), strict=True)
    return estimate([a / b for a, b in pairs])


def peak(turns: Turns, flops: float) -> float:
    """FLOPs a second: in each round its fastest step, and of these the median."""
    return flops / statistics.median(min(turn) for turn in turns)
