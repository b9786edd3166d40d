"""What a climb came to: for each rung its speed, its gain, and how near it is to what bounds it.

Ratios are taken within a round and their median is given with its interval (see summary.py). A rung
is called faster or slower only where that interval leaves out 1 and the median is further from 1
than the interval of the control goes, a rung against itself on as many threads.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks import summary

Rounds = Sequence[Sequence[float] | None]
# An interval that covers less, for there were few rounds, resolves nothing.
LEAST_COVERAGE = 0.9
COMPUTE, MEMORY = "compute", "memory"
FASTER, SLOWER, SAME = "faster", "slower", "same"


def stand(record: dict[str, Any], caches: dict[str, int]) -> dict[str, Any]:
    """Adds to a climb's record what follows from it, in place; returns it.

    "cache": by threads, where their working set lies (see cache_of). Of each row "summary".
    """
    threads = {limit["threads"] for limit in record["limits"]}
    record["cache"] = {str(each): cache_of(record["working_set"], each, caches) for each in threads}
    for limit in record["limits"]:
        best = min((min(turn) for turn in limit["seconds"] if turn), default=None)
        limit["rate"] = limit["amount"] / best if best else None
        paces = [seconds / limit["amount"] for seconds in rounds_of(limit)]
        limit["pace"] = statistics.median(paces) if paces else None
    noise: dict[int, dict[str, float] | None] = {}
    for control in record["controls"]:
        twin = find_twin(record, control)
        noise[control["threads"]] = compared(twin["seconds"], control["seconds"])
        control["ratio"] = noise[control["threads"]]
    before: dict[str, Any] | None = None
    for row in record["rows"]:
        if not any(row.get("seconds", ())):
            continue
        found = row["summary"] = speed(record, row)
        against = noise.get(row["threads"])
        if row["reference"]:
            if kernel := kernel_with(record, row["threads"]):
                found["by_ours"] = compared(row["seconds"], kernel["seconds"])
                found["verdict"] = verdict(found["by_ours"], against)
        else:
            if before is not None:
                found["gain"] = compared(before["seconds"], row["seconds"])
                found["verdict"] = verdict(found["gain"], against)
            before = row if row["threads"] == 1 or before is None else before
    return record


def rounds_of(entrant: dict[str, Any]) -> list[float]:
    """Return the median seconds of each turn that was taken."""
    return summary.of_rounds([turn for turn in entrant["seconds"] if turn])


def find_twin(record: dict[str, Any], control: dict[str, Any]) -> dict[str, Any]:
    """The row of whom the control is."""
    same = ("rung", "by", "threads")
    return next(row for row in record["rows"] if all(row[key] == control[key] for key in same))


def kernel_with(record: dict[str, Any], threads: int) -> dict[str, Any] | None:
    """The last rung that was measured with so many threads."""
    rows = [
        row
        for row in record["rows"]
        if not row["reference"] and row["threads"] == threads and any(row.get("seconds", ()))
    ]
    return rows[-1] if rows else None


def compared(theirs: Rounds, ours: Rounds) -> dict[str, float] | None:
    """Their seconds by ours in the rounds that both took part in; None if there is none."""
    pairs = [(a, b) for a, b in zip(theirs, ours, strict=True) if a and b]
    if not pairs:
        return None
    return asdict(summary.ratio([a for a, _ in pairs], [b for _, b in pairs]))


def verdict(ratio: dict[str, float] | None, noise: dict[str, float] | None) -> str:
    if ratio is None or noise is None or ratio["coverage"] < LEAST_COVERAGE:
        return SAME
    beyond = max(noise["high"], 1 / noise["low"])
    if ratio["low"] > 1 and ratio["median"] > beyond:
        return FASTER
    if ratio["high"] < 1 and ratio["median"] < 1 / beyond:
        return SLOWER
    return SAME


def speed(record: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """Seconds, rates, and the share of what bounds it: floor by seconds, round by round.

    The floor is the longer of two times: of the FLOPs at the machine's peak, and of the bytes at
    the bandwidth of their working set (Williams, Waterman, Patterson, "Roofline", 2009).
    """
    turns = [turn for turn in row["seconds"] if turn]
    medians = rounds_of(row)
    median = statistics.median(medians)
    found: dict[str, Any] = {
        **asdict(summary.estimate(medians)),
        "min": min(min(turn) for turn in turns),
        "max": max(max(turn) for turn in turns),
        "flops_per_second": record["flops"] / median,
        "bytes_per_second": record["bytes"] / median,
    }
    rates = {
        each["name"]: each["rate"]
        for each in record["limits"]
        if each["threads"] == row["threads"] and each["rate"]
    }
    if rates:
        computing, moving = record["flops"] / rates["peak"], record["bytes"] / bandwidth(rates)
        found["limit"] = COMPUTE if computing >= moving else MEMORY
        floor = max(computing, moving)
        found["share"] = asdict(summary.estimate([floor / seconds for seconds in medians]))
    return found


def bandwidth(rates: dict[str, float]) -> float:
    """Bytes a second, by the faster of two ways to move them (see limits.py)."""
    return max(rates["triad"], rates.get("update", 0.0))


def cache_of(size: int, threads: int, caches: dict[str, int]) -> str:
    """The name of the smallest caches that hold so many bytes, or "memory".

    Each thread has its own, but the last, which all share.
    """
    *own, last = caches.items()
    rooms = [*((name, room * threads) for name, room in own), last]
    return next((name for name, room in rooms if size <= room), "memory")
