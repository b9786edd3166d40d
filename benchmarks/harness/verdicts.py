"""Decide which ratios of a case prove a difference.

Controls (A/A) tell how much two measurements of the same rung differ. A row is called
faster or slower only if

- the interval of its ratio is beyond what is usual between a rung and itself in this run;
- its median is beyond MARGIN and beyond the intervals of the controls of both sides in this case.

A row is "unresolved", with the reason, if its threads had too few CPUs, if it waited for a CPU in
many turns, or if a control differs from itself; the last is also a warning.
"""

import statistics
from collections.abc import Iterable, Mapping

from benchmarks.harness.analysis import (
    FASTER,
    SAME,
    SLOWER,
    Interval,
    Record,
    compared,
    estimate,
    is_disturbed,
    key_of,
    timed,
)

# Processes of the same rung, whose memory has other places, differ by up to 7 % on a quiet machine.
# A control this far from 1, with 1 outside its interval, makes what is compared with it doubtful.
MARGIN = 1.1
# An interval that covers less, because there were few rounds, resolves nothing.
LEAST_COVERAGE = 0.9
# The part of N times the peak of one thread that N threads must reach.
LEAST_CPUS = 0.8
# The part of its turns in which a row may wait for a CPU.
MOST_WAITS = 1 / 3

Side = tuple[str, int]  # whose rung it is, and on how many threads
Controls = Mapping[Side, Interval | None]


def judge(record: Record, earlier: Iterable[Record] = ()) -> Record:
    """Add the verdicts to an analysed record, in place, and return it.

    A row that is compared with another gets a "verdict", and so does each ratio in "against". It
    gets "unresolved" if its time or that of the other proves nothing, and "warnings". earlier: the
    records of the run so far.
    """
    controls: Controls = {
        (each["by"], each["threads"]): each["ratio"] for each in record["controls"]
    }
    usual, cpus = usual_noise([*earlier, record]), cpus_of(record)
    for row in timed(record):
        if reason := disturbance(row, cpus):
            row["unresolved"] = reason
    for row, other in compared(record):
        row["verdict"] = SAME
        found: Interval | None = row.get("by_ours", row.get("gain"))
        if found is None or not controls:  # Whole models have no controls.
            continue
        row["verdict"], reason, doubts = decide(found, row, other, controls, usual, cpus)
        if doubts:
            row["warnings"] = [*row.get("warnings", []), *doubts]
        if reason:
            row["unresolved"] = reason
    rows = {key_of(row): row for row in record["rows"]}
    for row in timed(record):
        for each in (each for each in row.get("against", ()) if each["ratio"] and controls):
            said = decide(each["ratio"], row, rows[each["other"]], controls, usual, cpus)
            each["verdict"], each["unresolved"], _ = said
    return record


def decide(
    found: Interval, row: Record, other: Record, controls: Controls, usual: Mapping[int, float],
    cpus: Mapping[int, float],
) -> tuple[str, str | None, list[str]]:  # fmt: skip
    """Return the verdict on a ratio of two rows, why there is none, and what the controls say."""
    sides: list[Side] = [(each["by"], each["threads"]) for each in (row, other)]
    doubts = [text for side in dict.fromkeys(sides) if (text := doubt(side, controls))]
    theirs = disturbance(other, cpus)
    few = "too few rounds" if found.coverage < LEAST_COVERAGE else None
    reasons = [disturbance(row, cpus), theirs and f"{other['rung']}: {theirs}", *doubts, few]
    if reason := next(filter(None, reasons), None):
        return SAME, reason, doubts
    own = [reach(noise) for side in sides if (noise := controls[side])]
    expected = max(usual[threads] for _, threads in sides)
    return verdict(found, expected, max(MARGIN, *own)), None, doubts


def verdict(found: Interval, beyond: float, median_beyond: float) -> str:
    """Return whether the interval of a ratio and its median are beyond these, or the inverse."""
    if found.low > beyond and found.median > median_beyond:
        return FASTER
    return SLOWER if found.high < 1 / beyond and found.median < 1 / median_beyond else SAME


def reach(noise: Interval) -> float:
    """Return how far the interval of a control goes from 1, as a factor."""
    return max(noise.high, 1 / noise.low)


def usual_noise(records: Iterable[Record]) -> dict[int, float]:
    """Return how far controls usually go from 1, by threads.

    A control of few rounds may be narrow by luck. With few controls this is the widest.
    """
    found: dict[int, list[float]] = {}
    for control in (control for record in records for control in record["controls"]):
        if control["ratio"]:
            found.setdefault(control["threads"], []).append(reach(control["ratio"]))
    return {threads: estimate(reaches).high for threads, reaches in found.items()}


def doubt(side: Side, controls: Controls) -> str | None:
    """Return why the control of a side makes its ratios doubtful, or None."""
    by, threads = side
    noise, name = controls.get(side), f"{by} ×{threads}" if threads > 1 else by
    if noise is None:
        return f"no A/A of {name}"
    apart = max(noise.median, 1 / noise.median) > MARGIN and not noise.low <= 1 <= noise.high
    return f"A/A of {name} is {noise.median:.2f}" if apart else None


def disturbance(row: Record, cpus: Mapping[int, float]) -> str | None:
    """Return why the time of a row proves nothing, or None."""
    threads, taken = row["threads"], sum(map(bool, row["turns"]))
    if cpus.get(threads, threads) < LEAST_CPUS * threads:
        return f"{threads} threads had {cpus[threads]:.1f} CPUs"
    waits = sum(map(is_disturbed, row.get("waits") or []))
    if waits > MOST_WAITS * taken:
        return f"waited for a CPU in {waits} of {taken} turns"
    return None


def cpus_of(record: Record) -> dict[int, float]:
    """Return how many times the peak of one thread was reached, by threads, if it is known."""
    peaks = {each["threads"]: each for each in record["limits"] if each["name"] == "peak"}
    found: dict[int, float] = {}
    for threads, peak in peaks.items():
        one = peaks.get(1)
        # All turns count: those in which it waited show that there were too few CPUs.
        pairs = zip(one["turns"], peak["turns"], strict=True) if one else ()
        gains = [statistics.median(a) / statistics.median(b) for a, b in pairs if a and b]
        if one and gains:
            found[threads] = statistics.median(gains) * peak["amount"] / one["amount"]
    return found
