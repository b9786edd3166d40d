"""Analyse the turns of a comparison: times, gains, verdicts, fraction of the limit.

A gain is called faster or slower only if the interval of its ratio excludes 1 and its median is
further from 1 than the interval of the A/A control, in which a rung is compared with itself.
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.harness.statistics import Interval, estimate, medians, ratio

# An interval that covers less, because there were few rounds, resolves nothing.
LEAST_COVERAGE = 0.9
FASTER, SLOWER, SAME = "faster", "slower", "same"


def analyse(record: dict[str, Any], caches: Mapping[str, int]) -> dict[str, Any]:
    """Add the results to the record of a comparison, in place, and return it.

    A row gets "seconds" per step, "gain" over the serial rung above or, for a reference, "by_ours"
    (its time divided by that of the last rung on as many threads), "verdict", and "fraction" of the
    limit. A limit gets "rate" per second and "pace" (seconds per unit). "cache" is the cache that
    the working set fits, by threads.
    """
    for limit in record["limits"]:
        turns, amount = [turn for turn in limit["turns"] if turn], limit["amount"]
        limit["rate"] = amount / min(map(min, turns)) if turns else None
        limit["pace"] = estimate(medians(turns)).median / amount if turns else None
    if "working_set" in record:
        # Each thread has its own caches, except for the last level, which all share.
        *own, last = caches.items()
        for threads in {limit["threads"] for limit in record["limits"]}:
            sizes = [*((name, capacity * threads) for name, capacity in own), last]
            fitting = [name for name, capacity in sizes if record["working_set"] <= capacity]
            record.setdefault("cache", {})[str(threads)] = (*fitting, "memory")[0]
    rows = {(row["rung"], row["by"], row["threads"]): row for row in record["rows"]}
    noise: dict[int, Interval | None] = {}
    for control in record["controls"]:
        twin = rows[control["rung"], control["by"], control["threads"]]
        noise[control["threads"]] = control["ratio"] = ratio(twin["turns"], control["turns"])
    timed = [row for row in record["rows"] if any(row["turns"])]
    last = {row["threads"]: row for row in timed if not row["reference"]}
    above: dict[str, Any] | None = None
    rates = rates_of(record)
    for row in timed:
        add_speed(record, row, rates.get(row["threads"]))
        if row["reference"]:
            name, slower, faster = "by_ours", row, last.get(row["threads"])
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


def add_speed(record: dict[str, Any], row: dict[str, Any], rates: dict[str, float] | None) -> None:
    """Add the seconds of a row, their range, and the fraction of what bounds it.

    The bound is the longer of two times: the FLOPs at the machine's peak, and the bytes at the
    bandwidth for their working set (Williams, Waterman, Patterson, "Roofline", 2009).
    """
    turns = [turn for turn in row["turns"] if turn]
    times = medians(turns)
    row["seconds"] = estimate(times)
    row["range"] = min(map(min, turns)), max(map(max, turns))
    if rates and record.get("flops"):
        computing, moved = record["flops"] / rates["peak"], record.get("bytes")
        moving = moved / bandwidth(rates) if moved else 0.0
        row["bound"] = "compute" if computing >= moving else "memory"
        row["fraction"] = estimate([max(computing, moving) / seconds for seconds in times])


def bandwidth(rates: Mapping[str, float]) -> float:
    """Return the bytes per second of the faster way to move them (see limits.py)."""
    return max(rates["triad"], rates.get("update", 0.0))
