"""Analyse the turns of a comparison: times, gains, verdicts, fraction of the limit.

A gain is called faster or slower only if the interval of its ratio excludes 1 and its median is
further from 1 than the interval of the A/A control, in which a rung is compared with itself.
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.harness.statistics import Interval, estimate, medians, ratio

# An interval that covers less, because there were few rounds, resolves nothing.
LEAST_COVERAGE = 0.9
COMPUTE, MEMORY = "compute", "memory"
FASTER, SLOWER, SAME = "faster", "slower", "same"


def analyse(record: dict[str, Any], caches: Mapping[str, int]) -> dict[str, Any]:
    """Add the results to the record of a comparison, in place, and return it.

    A row gets "seconds" per step, "gain" over the serial rung above or, for a reference, "by_ours"
    (its time divided by that of the last rung on as many threads), "verdict", and "fraction" of the
    limit. A limit gets "rate" per second and "pace" (seconds per unit). "cache" is the cache that
    the working set fits, by threads.
    """
    for limit in record["limits"]:
        turns = [turn for turn in limit["turns"] if turn]
        amount = limit["amount"]
        limit["rate"] = amount / min(min(turn) for turn in turns) if turns else None
        limit["pace"] = estimate(medians(turns)).median / amount if turns else None
    if "working_set" in record:
        threads = {limit["threads"] for limit in record["limits"]}
        size = record["working_set"]
        record["cache"] = {str(each): cache_of(size, each, caches) for each in threads}
    noise: dict[int, Interval | None] = {}
    for control in record["controls"]:
        twin = find_twin(record, control)
        noise[control["threads"]] = control["ratio"] = ratio(twin["turns"], control["turns"])
    above: dict[str, Any] | None = None
    for row in record["rows"]:
        if not any(row["turns"]):
            continue
        add_speed(record, row)
        if row["reference"]:
            ours = last_rung(record, row["threads"])
            name, other = "by_ours", (row, ours) if ours else None
        else:
            name, other = "gain", (above, row) if above else None
            above = row if row["threads"] == 1 or above is None else above
        if other is not None:
            row[name] = ratio(other[0]["turns"], other[1]["turns"])
            row["verdict"] = verdict(row[name], noise.get(row["threads"]))
    return record


def find_twin(record: dict[str, Any], control: dict[str, Any]) -> dict[str, Any]:
    """Return the row that a control repeats."""
    same = ("rung", "by", "threads")
    return next(row for row in record["rows"] if all(row[key] == control[key] for key in same))


def last_rung(record: dict[str, Any], threads: int) -> dict[str, Any] | None:
    """Return the last rung that was timed on as many threads."""
    rows = [
        row
        for row in record["rows"]
        if not row["reference"] and row["threads"] == threads and any(row["turns"])
    ]
    return rows[-1] if rows else None


def verdict(found: Interval | None, noise: Interval | None) -> str:
    """Return whether a ratio is faster, slower or not resolved, given that of the control."""
    if found is None or noise is None or found.coverage < LEAST_COVERAGE:
        return SAME
    beyond = max(noise.high, 1 / noise.low)
    if found.low > 1 and found.median > beyond:
        return FASTER
    if found.high < 1 and found.median < 1 / beyond:
        return SLOWER
    return SAME


def add_speed(record: dict[str, Any], row: dict[str, Any]) -> None:
    """Add the seconds of a row, their range, and the fraction of what bounds it.

    The bound is the longer of two times: the FLOPs at the machine's peak, and the bytes at the
    bandwidth for their working set (Williams, Waterman, Patterson, "Roofline", 2009).
    """
    turns = [turn for turn in row["turns"] if turn]
    times = medians(turns)
    row["seconds"] = estimate(times)
    row["range"] = min(map(min, turns)), max(map(max, turns))
    rates = {
        each["name"]: each["rate"]
        for each in record["limits"]
        if each["threads"] == row["threads"] and each["rate"]
    }
    flops, moved = record.get("flops"), record.get("bytes")
    if not rates or not flops:
        return
    computing = flops / rates["peak"]
    moving = moved / bandwidth(rates) if moved else 0.0
    row["bound"] = COMPUTE if computing >= moving else MEMORY
    row["fraction"] = estimate([max(computing, moving) / seconds for seconds in times])


def bandwidth(rates: Mapping[str, float]) -> float:
    """Return the bytes per second of the faster way to move them (see limits.py)."""
    return max(rates["triad"], rates.get("update", 0.0))


def cache_of(size: int, threads: int, caches: Mapping[str, int]) -> str:
    """Return the name of the smallest cache that a working set fits, or "memory".

    Each thread has its own caches, except for the last level, which all share.
    """
    *own, last = caches.items()
    sizes = [*((name, capacity * threads) for name, capacity in own), last]
    return next((name for name, capacity in sizes if size <= capacity), "memory")
