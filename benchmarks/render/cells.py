"""A row on the terminal and on the page: its name, its figures by column, its notes."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.harness.analysis import (
    FASTER,
    MINE,
    SAME,
    SLOWER,
    Interval,
    bandwidth,
    key_of,
    rates_of,
)

GIGA = 1e9
# States of a row that was not timed, in red.
WRONG, FAILED = "WRONG", "FAILED"
MARKS = {FASTER: "▲", SLOWER: "▼", SAME: "~"}
OURS = "ours"
# The parts of a table: our rungs, the user's kernels, and references.
LADDER, REFERENCES = "ladder", "references"
PARTS = (LADDER, MINE, REFERENCES)


def percent(fraction: float) -> str:
    """Return a percentage that is never rounded to zero."""
    return f"{fraction:.0%}" if fraction >= 0.01 else f"{100 * fraction:.1g}%"


def milliseconds(seconds: float) -> str:
    """Return milliseconds to three or four digits, without an exponent."""
    value = seconds * 1e3
    if value >= 1e4:
        return f"{value:,.0f}"
    return f"{value:.4g}" if value >= 0.1 else f"{value:.{2 - math.floor(math.log10(value))}f}"


def number(value: float) -> str:
    """Return a number to about three digits, which is never rounded to zero."""
    if value < 0.1 or value >= 1e6:
        return f"{value:.2g}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def interval(ratio: Interval) -> str:
    """Return a ratio with its interval; a single round has none."""
    if not ratio.coverage:
        return number(ratio.median)
    return f"{number(ratio.median)} ({number(ratio.low)}–{number(ratio.high)})"


def several(threads: int) -> str:
    """Return a number of threads in words."""
    return f"{threads} thread{'s' * (threads != 1)}"


# Other figures of a row: the column, and how a value is shown there.
PAID: dict[str, tuple[str, Callable[[float], str]]] = {
    "compile_seconds": ("compile s", lambda value: f"{value:.2f}" if value else "cached"),
    "first_seconds": ("first ms", milliseconds),
    "packed": ("packed", percent),
    "memory": ("MB", lambda value: f"{value / 1e6:,.0f}"),
    "warm_up_seconds": ("warm-up s", lambda value: f"{value:.1f}"),
}


def prefixed(value: float, unit: str = "") -> str:
    """Return a number to three digits with a decimal prefix."""
    rounded = float(f"{value:.3g}")
    power = min(int(math.log10(rounded)) // 3, 4) if rounded >= 1 else 0
    return f"{rounded / 1000**power:.3g} {' kMGT'[power].strip()}{unit}".rstrip()


def label(row: Mapping[str, Any]) -> str:
    """Return the name of a row with its threads, if it has several."""
    return row["rung"] + (f" ×{row['threads']}" if row["threads"] > 1 else "")


def names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of rows; equal ones are told apart by whose rungs they are."""
    labels = [label(row) for row in rows]
    whose = [row["by"] if row["by"] in (OURS, MINE) else f"peer {row['by']}" for row in rows]
    return [
        f"{name} ({by})" if labels.count(name) > 1 else name
        for name, by in zip(labels, whose, strict=True)
    ]


def names_of(record: dict[str, Any]) -> dict[tuple[str, str, int], str]:
    """Return the names of the rows of a record by their keys."""
    rows = record["rows"]
    return dict(zip(map(key_of, rows), names(rows), strict=True))


def figures(record: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the figures of a row by column, each as a number and a note."""
    found: dict[str, tuple[str, str]] = {}
    if is_timed(row):
        median = row["seconds"].median
        found["ms"] = (milliseconds(median), "")
        if record.get("tokens"):
            found["min – max"] = (" – ".join(milliseconds(value) for value in row["range"]), "")
            found["tokens/s"] = (f"{record['tokens'] / median:,.0f}", "")
        if ratio := gain_of(row):
            spread = f"{number(ratio.low)}–{number(ratio.high)}"
            # A single round has no interval.
            found["gain"] = (number(ratio.median), spread if ratio.coverage else "")
        for name, unit in (("flops", "GFLOP/s"), ("bytes", "GB/s")):
            if record.get(name):
                found[unit] = (number(record[name] / median / GIGA), "")
        if "fraction" in row:
            found["of limit"] = (share(row), row["bound"])
    for key, (column, words) in PAID.items():
        if row.get(key) is not None:
            found[column] = (words(row[key]), "")
    counted: dict[str, float] = row.get("counters") or {}
    if "instructions" in counted and counted.get("cycles"):
        ratio = number(counted["instructions"] / counted["cycles"])
        found["IPC"] = (ratio, f"{prefixed(counted['instructions'])} instr.")
    if "misses" in counted:
        found["misses"] = (prefixed(counted["misses"]), "")
    return found


def share(row: Mapping[str, Any]) -> str:
    """Return the fraction of the limit; "?" if the limit cannot have been measured well."""
    fraction = row["fraction"][0]
    return "?" if row.get("unresolved") and fraction > 1 else percent(fraction)


def is_timed(row: Mapping[str, Any]) -> bool:
    """Return whether a row has times that count: it was neither wrong nor did it fail."""
    return "seconds" in row and not (row.get("wrong") or row.get("failed"))


def part(row: Mapping[str, Any]) -> str:
    """Return the part of the table that a row is in."""
    return MINE if row["by"] == MINE else REFERENCES if row["reference"] else LADDER


def gain_of(row: Mapping[str, Any]) -> Interval | None:
    """Return the speedup over the rung above or our trained one, or the time divided by ours."""
    return row.get("by_ours" if part(row) == REFERENCES else "gain")


def why_not(row: Mapping[str, Any]) -> str:
    """Return why a row has no times."""
    if row.get("wrong"):
        return WRONG
    if row.get("failed"):
        return FAILED
    if row.get("offered") is False:
        return "not offered"
    if not row.get("able", True):
        return "too slow"
    return "" if "seconds" in row else "no turn"


def notes(row: Mapping[str, Any]) -> list[str]:
    """Return what is to be known of a row besides its figures."""
    unresolved = row.get("unresolved")
    found = [f"no verdict: {unresolved}"] if unresolved else []
    found += [text for text in row.get("warnings", []) if text != unresolved]
    if row.get("layouts", "any") != "any":
        found.append(row["layouts"])
    return found


def loop_in_words(record: dict[str, Any], row: Mapping[str, Any]) -> str:
    """Return the counts of the hottest loop; of multiply-adds with the time at the peak."""
    counts, peak = row["loop"][-1], rates_of(record).get(1, {}).get("peak")
    time = f", {number(row['loop_flops'] / peak * 1e9)} ns at the peak" if peak else ""
    return counts + (time if "FMA" in counts else "")


def sizes(record: Mapping[str, Any]) -> str:
    """Return the sizes of a case in words."""
    return ", ".join(f"{letter} {size:,}" for letter, size in record.get("sizes", {}).items())


def costs(record: Mapping[str, Any]) -> str:
    """Return the FLOPs and bytes of a case in words, with decimal prefixes."""
    units = {"flops": "FLOP", "bytes": "B"}
    return ", ".join(prefixed(record[key], unit) for key, unit in units.items() if record.get(key))


def limit_name(limit: Mapping[str, Any]) -> str:
    """Return the name of a limit of the machine with its unit."""
    return f"triad, {limit['where']}, GB/s" if limit["where"] else f"{limit['name']}, GFLOP/s"


def limits_in_words(record: dict[str, Any]) -> list[str]:
    """Return the peak and the bandwidth of the comparison, for each number of threads."""
    return [
        f"{several(threads)}: {rates['peak'] / GIGA:.0f} GFLOP/s"
        + (f", {bandwidth(rates) / GIGA:.0f} GB/s ({record['cache'][str(threads)]})"
           if "triad" in rates else "")
        for threads, rates in rates_of(record).items()
    ]  # fmt: skip


def against_in_words(record: dict[str, Any]) -> list[str]:
    """Return how many times as fast as others each kernel of the user is."""
    rows: list[dict[str, Any]] = record["rows"]
    named, found = names_of(record), list[str]()
    for row in (row for row in rows if is_timed(row)):
        ratios = [
            f"{interval(each['ratio'])} {mark(each)} as {named[tuple(each['other'])]}"
            for each in row.get("against", ())
            if each["ratio"]
        ]
        if ratios:
            found.append(f"{named[key_of(row)]}, times as fast: {', '.join(ratios)}")
    return found


def mark(judged: Mapping[str, Any]) -> str:
    """Return the sign of a verdict."""
    return "?" if judged.get("unresolved") else MARKS[judged.get("verdict", SAME)]


def controls_in_words(record: dict[str, Any]) -> str:
    """Return what the controls gained over themselves, if there are any."""
    named = names_of(record)
    gained = [
        f"{named[key_of(control)]} {interval(control['ratio'])}"
        for control in record["controls"]
        if control["ratio"]
    ]
    return f"A/A: {', '.join(gained)}" if gained else ""
