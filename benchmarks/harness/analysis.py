"""Analyse the turns of a comparison: times, gains, verdicts, fraction of the limit.

A shared machine is faster in one minute than in the next, so the ratio of two candidates is taken
in each round; the median counts. A gain is called faster or slower only if the interval of its
ratio excludes 1 and its median is further from 1 than the interval of the A/A control, in which a
rung is compared with itself.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# An interval that covers less, because there were few rounds, resolves nothing.
LEAST_COVERAGE = 0.9
# The limits that move bytes.
BANDWIDTHS = ("triad", "update", "read")
FASTER, SLOWER, SAME = "faster", "slower", "same"

# For each round the seconds of the samples of a turn; None for a turn that was not taken.
Rounds = Sequence[Sequence[float] | None]


class Interval(NamedTuple):
    """A median, and an interval that contains the true median with probability `coverage`."""

    median: float
    low: float
    high: float
    coverage: float


def analyse(record: dict[str, Any], machine: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add the results to the record of a comparison, in place, and return it.

    machine: the limits of the machine, with the bandwidth of each cache.

    A row gets "seconds" per step, "gain" over the serial rung above or, for a reference, "by_ours"
    (its time divided by that of the trained rung on as many threads), "verdict", and "fraction" of
    the limit. A limit gets "rate" per second and "pace" (seconds per unit). "cache" is the cache
    that the working set fits, by threads.
    """
    for limit in record["limits"]:
        turns, amount = [turn for turn in limit["turns"] if turn], limit["amount"]
        limit["pace"] = estimate(medians(turns)).median / amount if turns else None
        limit["rate"] = 1 / limit["pace"] if turns else None
    rates = rates_of(record)
    if "working_set" in record:
        record["cache"] = {
            str(threads): cache_of(each["triad"], threads, machine)
            for threads, each in rates.items()
            if "triad" in each
        }
    rows = {(row["rung"], row["by"], row["threads"]): row for row in record["rows"]}
    noise: dict[int, Interval | None] = {}
    for control in record["controls"]:
        twin = rows[control["rung"], control["by"], control["threads"]]
        noise[control["threads"]] = control["ratio"] = ratio(twin["turns"], control["turns"])
    timed = [row for row in record["rows"] if any(row["turns"])]
    trained = {row["threads"]: row for row in timed if row["trained"]}
    above: dict[str, Any] | None = None
    for row in timed:
        add_speed(record, row)
        if row["reference"]:
            name, slower, faster = "by_ours", row, trained.get(row["threads"])
        else:
            name, slower, faster = "gain", above, row
            above = row if row["threads"] == 1 or above is None else above
        if slower is not None and faster is not None:
            row[name] = ratio(slower["turns"], faster["turns"])
            row["verdict"] = verdict(row[name], noise.get(row["threads"]))
    return record


def rates_of(record: dict[str, Any]) -> dict[int, dict[str, float]]:
    """Return the rates of the limits by threads and name, if they had a turn."""
    found: dict[int, dict[str, float]] = {}
    for limit in record["limits"]:
        if limit["rate"]:
            found.setdefault(limit["threads"], {})[limit["name"]] = limit["rate"]
    return found


def verdict(found: Interval | None, noise: Interval | None) -> str:
    """Return whether a ratio is faster, slower or not resolved, given that of the control."""
    if found is None or noise is None or found.coverage < LEAST_COVERAGE:
        return SAME
    beyond = max(noise.high, 1 / noise.low)
    if found.low > 1 and found.median > beyond:
        return FASTER
    return SLOWER if found.high < 1 and found.median < 1 / beyond else SAME


def add_speed(record: dict[str, Any], row: dict[str, Any]) -> None:
    """Add the seconds of a row, their range, and the fraction of its bound by the roofline."""
    turns = [turn for turn in row["turns"] if turn]
    row["seconds"] = estimate(medians(turns))
    row["range"] = min(map(min, turns)), max(map(max, turns))
    limits = {
        limit["name"]: limit
        for limit in record["limits"]
        if limit["threads"] == row["threads"] and limit["rate"]
    }
    if limits and record.get("flops"):
        works = {"peak": record["flops"]}
        if record.get("bytes"):
            fastest = max(set(limits) & {*BANDWIDTHS}, key=lambda name: limits[name]["rate"])
            works[fastest] = record["bytes"]
        binding = max(works, key=lambda name: works[name] / limits[name]["rate"])
        row["bound"] = "compute" if binding == "peak" else "memory"
        limit = limits[binding]
        if found := ratio(limit["turns"], row["turns"]):
            scale = works[binding] / limit["amount"]
            low, high = scale * found.low, scale * found.high
            row["fraction"] = Interval(scale * found.median, low, high, found.coverage)


def bandwidth(rates: Mapping[str, float]) -> float:
    """Return the bytes per second of the fastest way to move them (see limits.py)."""
    return max(rate for name, rate in rates.items() if name in BANDWIDTHS)


def cache_of(rate: float, threads: int, machine: Sequence[dict[str, Any]]) -> str | None:
    """Return the cache, or memory, whose bandwidth for so many threads is the nearest to a rate."""
    rates = {
        limit["where"]: limit["rate"][0]
        for limit in machine
        if (limit["name"], limit["threads"]) == ("triad", threads)
    }
    return min(rates, key=lambda where: abs(math.log(rates[where] / rate)), default=None)


def estimate(values: Sequence[float], coverage: float = 0.95) -> Interval:
    """Return the median of independent values and the narrowest interval that covers enough.

    The interval is from the k-th lowest to the k-th highest value, or the range. Each is below the
    true median with probability 1/2, so the number of these is binomial.
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
