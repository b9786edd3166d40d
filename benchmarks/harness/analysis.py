"""Analyse the turns of a comparison: times, gains, fraction of the limit.

A shared machine is faster in one minute than in the next, so the ratio of two candidates is taken
in each round; the median counts. Turns in which a candidate waited for a CPU are left out. What the
ratios prove is decided in verdicts.py.
"""

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

# The limits that move bytes.
BANDWIDTHS = ("triad", "update", "read")
FASTER, SLOWER, SAME = "faster", "slower", "same"
MINE = "mine"  # whose rows the kernels of the user are
# A turn is disturbed if its threads waited for a CPU for more than this fraction of it.
DISTURBED = 0.05
# Disturbed turns are left out only if this many remain; fewer have no interval of 90 %.
ENOUGH = 5
# More than this fraction of a limit is an error of a kernel or of the limit.
MOST = 1.2
# Fewer others do not tell the pace of a round.
OTHERS = 3
# The interval of steady times covers this; one outlier in six rounds does not widen it.
STEADY_COVERAGE = 0.75

# For each round the seconds of the samples of a turn; None for a turn that was not taken.
Rounds = Sequence[Sequence[float] | None]
Record = dict[str, Any]


class Interval(NamedTuple):
    """A median, and an interval that contains the true median with probability `coverage`."""

    median: float
    low: float
    high: float
    coverage: float


def analyse(record: Record, machine: Sequence[Record]) -> Record:
    """Add the results to the record of a comparison, in place, and return it.

    machine: the limits of the machine, with the bandwidth of each cache.

    A row gets "seconds" per step, "steady" (the same, corrected for the pace of each round),
    "gain" over the serial rung above or, for a reference, "by_ours" (its time divided by that of
    the trained rung on as many threads), and "fraction" of the limit. A kernel of the user gets its
    "gain" over the trained rung, and "against" all that it may be compared with. A limit gets
    "rate" per second, a control "ratio" to the row that it repeats. "cache" is by threads the
    cache whose bandwidth was measured for the working set.
    """
    for limit in record["limits"]:
        times = medians(undisturbed(limit))
        limit["rate"] = limit["amount"] / statistics.median(times) if times else None
    if "working_set" in record:
        record["cache"] = {
            str(threads): cache_of(each["triad"], threads, machine)
            for threads, each in rates_of(record).items()
            if "triad" in each
        }
    rows = {key_of(row): row for row in record["rows"]}
    for control in record["controls"]:
        control["ratio"] = ratio(rows[key_of(control)], control)
    for row in timed(record):
        add_speed(record, row)
    add_steady(record)
    for row, other in compared(record):
        if row["reference"] and row["by"] != MINE:
            row["by_ours"] = ratio(row, other)
        else:
            row["gain"] = ratio(other, row)
    for row, other in opposed(record):
        against = {"other": key_of(other), "ratio": ratio(other, row)}
        row.setdefault("against", []).append(against)
    return record


def refuse_impossible(record: Record) -> None:
    """Mark rows as "wrong" that are too fast to be right, before the record is analysed.

    The whole interval of their time must be, even given the best turn of the limits: on as many
    threads, or on one thread, times the threads. Disturbed turns do not count.
    """
    best = {
        (limit["name"], limit["threads"]): limit["amount"] / min(times)
        for limit in record["limits"]
        if (times := quiet_times(limit))
    }
    for row in timed(record):
        threads, times = row["threads"], quiet_times(row)
        rates = {
            name: max(rate, threads * best.get((name, 1), 0.0))
            for (name, count), rate in best.items()
            if count == threads
        }
        if times and rates.keys() >= {"peak", "triad"}:
            least = max(record["flops"] / rates["peak"], record["bytes"] / bandwidth(rates))
            fraction = least / estimate(times).high
            if fraction > MOST:
                row["wrong"] = f"runs at {fraction:.0%} of the limit: it does not do all the work"


def quiet_times(candidate: Record) -> list[float]:
    """Return the median of each turn that was not disturbed, if there are enough of these."""
    turns = itertools.zip_longest(candidate["turns"], candidate.get("waits") or [])
    times = medians([turn for turn, waited in turns if not is_disturbed(waited)])
    return times if len(times) >= ENOUGH else []


def key_of(row: Record) -> tuple[str, str, int]:
    """Return what a row and its control have in common, and no other row has."""
    return row["rung"], row["by"], row["threads"]


def timed(record: Record) -> list[Record]:
    """Return the rows with times that count: neither wrong nor failed."""
    rows = (row for row in record["rows"] if not (row.get("wrong") or row.get("failed")))
    return [row for row in rows if any(row["turns"])]


def compared(record: Record) -> Iterator[tuple[Record, Record]]:
    """Yield rows, each with the one that it is compared with.

    That is the serial rung above or, for a reference, the trained rung on as many threads.
    """
    trained = {row["threads"]: row for row in timed(record) if row["trained"]}
    above: Record | None = None
    for row in timed(record):
        other = trained.get(row["threads"]) if row["reference"] else above
        if other is not None:
            yield row, other
        if not row["reference"] and (row["threads"] == 1 or above is None):
            above = row


def opposed(record: Record) -> Iterator[tuple[Record, Record]]:
    """Yield kernels of the user, each with every rung on as many threads that it may replace.

    That is the trained one, each reference, and the user's kernel before.
    """
    rows, before = timed(record), dict[int, Record]()
    for row in (row for row in rows if row["by"] == MINE):
        for other in (each for each in rows if each["threads"] == row["threads"]):
            reference = other["reference"] and other["by"] != MINE
            if other["trained"] or reference or other is before.get(row["threads"]):
                yield row, other
        before[row["threads"]] = row


def rates_of(record: Record) -> dict[int, dict[str, float]]:
    """Return the rates of the limits by threads and name, if they had a turn."""
    found: dict[int, dict[str, float]] = {}
    for limit in record["limits"]:
        if limit["rate"]:
            found.setdefault(limit["threads"], {})[limit["name"]] = limit["rate"]
    return found


def add_speed(record: Record, row: Record) -> None:
    """Add the seconds of a row, their range, and the fraction of its bound by the roofline."""
    turns = [turn for turn in row["turns"] if turn]
    row["seconds"] = estimate(medians(undisturbed(row)))
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
        if found := ratio(limit, row):
            scale = works[binding] / limit["amount"]
            low, high = scale * found.low, scale * found.high
            row["fraction"] = Interval(scale * found.median, low, high, found.coverage)


def add_steady(record: Record) -> None:
    """Add the seconds of rows without what slowed down the others in the same round.

    The pace of a round is the median, over the other candidates on as many threads, of their time
    in it divided by their usual time.
    """
    every = [*timed(record), *record["controls"], *record["limits"]]
    paces = [paces_of(each) for each in every]
    for row in timed(record):
        others = [
            pace
            for each, pace in zip(every, paces, strict=True)
            if each is not row and each["threads"] == row["threads"] and pace
        ]
        found: list[float] = []
        for number, turn in enumerate(undisturbed(row)):
            if turn:
                known = [pace for each in others if (pace := each[number]) is not None]
                slowdown = statistics.median(known) if len(known) >= OTHERS else 1.0
                found.append(statistics.median(turn) / slowdown)
        row["steady"] = estimate(found, STEADY_COVERAGE)


def paces_of(candidate: Record) -> list[float | None]:
    """Return the time of each turn divided by the median of these."""
    turns = undisturbed(candidate)
    times = medians(turns)
    usual = statistics.median(times) if times else math.nan
    return [statistics.median(turn) / usual if turn else None for turn in turns]


def bandwidth(rates: Mapping[str, float]) -> float:
    """Return the bytes per second of the fastest way to move them (see limits.py)."""
    return max(rate for name, rate in rates.items() if name in BANDWIDTHS)


def cache_of(rate: float, threads: int, machine: Sequence[Record]) -> str | None:
    """Return the cache, or memory, whose bandwidth is the nearest to a rate."""
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


def undisturbed(candidate: Record) -> Rounds:
    """Return the turns of a candidate without those in which it waited, if enough remain."""
    turns = candidate["turns"]
    waited = map(is_disturbed, candidate.get("waits") or [])
    kept = [None if wait else turn for turn, wait in itertools.zip_longest(turns, waited)]
    return kept if sum(map(bool, kept)) >= ENOUGH else turns


def is_disturbed(waited: float | None) -> bool:
    """Return whether a turn says little, given the fraction of it waited for a CPU if known."""
    return waited is not None and waited > DISTURBED


def ratio(theirs: Record, ours: Record) -> Interval | None:
    """Return their time divided by ours, from the rounds in which both took a turn."""
    pairs = zip(undisturbed(theirs), undisturbed(ours), strict=False)  # One may have no turns.
    found = [statistics.median(a) / statistics.median(b) for a, b in pairs if a and b]
    return estimate(found) if found else None
