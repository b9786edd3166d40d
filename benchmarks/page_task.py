"""A task of the kernel benchmark as its page shows it: texts, bars and a roofline."""

import math
from dataclasses import dataclass
from typing import Any

from benchmarks import roofline
from benchmarks.kernels_table import amount, gain, milliseconds, number, with_threads
from benchmarks.roofline import GIGA, several
from benchmarks.standing import FASTER, SAME, SLOWER, bandwidth

COLUMNS = {
    "ms": "milliseconds: the median over rounds",
    "gain": "times as fast as the serial rung above; of what is compared with: its time by ours",
    "GFLOP/s": "1e9 floating-point operations a second",
    "GB/s": "1e9 bytes a second",
    "of limit": "how near the time is to what bounds it, computing or moving the bytes",
    "compile s": "seconds of compiling; kept: it was on disk already",
    "first ms": "milliseconds of the first step, without compiling",
    "packed": "the share of packed vector instructions in its arithmetic",
}
WORDS = {FASTER: "▲ faster", SLOWER: "▼ slower", SAME: "not resolved"}
WORDS_OF_OURS = {**WORDS, FASTER: "▲ ours faster", SLOWER: "▼ ours slower"}


@dataclass(frozen=True)
class Bar:
    """In percent of the scale: up to `start`, then what the rung gained or lost, up to `end`.

    roof: where what bounds it is. kind: "first", "reference", or a verdict and "up" or "down".
    """

    start: float
    end: float
    roof: float | None
    kind: str


@dataclass(frozen=True)
class Scale:
    """A logarithmic one of FLOP/s, from a power of ten on."""

    low: float
    decades: float

    def place(self, value: float) -> float:
        share = (math.log10(value) - self.low) / self.decades
        return 100 * min(max(share, 0), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        powers = [self.low + step for step in range(math.floor(self.decades) + 1)]
        return [(100 * (p - self.low) / self.decades, f"{10 ** (p - 9):g}") for p in powers]


def view(task: dict[str, Any], key: str, roofs: roofline.Roofs, rounds: int) -> dict[str, Any]:
    """A task as the template shows it. key: its own among the tasks."""
    bounds = bounds_of(task)
    measured = [row["summary"]["flops_per_second"] for row in task["rows"] if "summary" in row]
    scale = scale_of([*measured, *bounds.values()])
    rows = [show(task, row, bounds, scale) for row in task["rows"]]
    sizes = ", ".join(f"{letter} {size:,}" for letter, size in task["sizes"].items())
    intensity = task["flops"] / task["bytes"]
    cost = f"{amount(task['flops'])}FLOP, {amount(task['bytes'])}B"
    controls = [
        f"{with_threads(control)} against itself {gain(control['ratio'])}"
        for control in task["controls"]
        if control["ratio"]
    ]
    return {
        "operation": task["operation"],
        "direction": task["direction"],
        "shape": task["shape"],
        "about": f"{sizes}; {cost}: {intensity:.2g} FLOP a byte",
        "stopped": f"stopped after {task['rounds']} of {rounds} rounds"
        if task["rounds"] < rounds
        else "",
        "scale": scale,
        "groups": [
            group
            for group in ([r for r in rows if not r["peer"]], [r for r in rows if r["peer"]])
            if group
        ],
        "limits": bounds_in_words(task),
        "controls": controls,
        "roofline": roofline.draw(key, intensity, points(task, rows), own_roofs(task, roofs))
        if measured
        else None,
    }


def points(task: dict[str, Any], rows: list[dict[str, Any]]) -> list[roofline.Point]:
    return [
        roofline.Point(
            shown["name"], shown["tip"], row["summary"]["flops_per_second"], not row["reference"]
        )
        for row, shown in zip(task["rows"], rows, strict=True)
        if "summary" in row
    ]


def own_roofs(task: dict[str, Any], roofs: roofline.Roofs) -> roofline.Roofs:
    """Those of the machine, but where this task lies as they were beside it."""
    peaks, bandwidths = {**roofs.peaks}, {key: {**each} for key, each in roofs.bandwidths.items()}
    for threads, rates in rates_of(task).items():
        peaks[threads] = rates["peak"]
        bandwidths.setdefault(threads, {})[task["cache"][str(threads)]] = bandwidth(rates)
    return roofline.Roofs(peaks, bandwidths)


def bounds_of(task: dict[str, Any]) -> dict[int, float]:
    """The FLOP/s that the machine allows in this task, by threads."""
    found: dict[int, float] = {}
    for threads, rates in rates_of(task).items():
        found[threads] = min(rates["peak"], bandwidth(rates) * task["flops"] / task["bytes"])
    return found


def rates_of(task: dict[str, Any]) -> dict[int, dict[str, float]]:
    """The limits beside a task's rungs, by threads; of those that had a turn."""
    found: dict[int, dict[str, float]] = {}
    for limit in task["limits"]:
        if limit["rate"]:
            found.setdefault(limit["threads"], {})[limit["name"]] = limit["rate"]
    return {threads: rates for threads, rates in found.items() if {"peak", "triad"} <= {*rates}}


def bounds_in_words(task: dict[str, Any]) -> list[str]:
    return [
        f"{several(threads)}: {rates['peak'] / GIGA:.0f} GFLOP/s, "
        f"{bandwidth(rates) / GIGA:.0f} GB/s ({task['cache'][str(threads)]})"
        for threads, rates in rates_of(task).items()
    ]


def scale_of(speeds: list[float]) -> Scale:
    """From a power of ten below the slowest, so that its bar is seen, to the fastest."""
    low = math.floor(math.log10(min(speeds, default=1) / 1.5))
    return Scale(low, math.log10(max(speeds, default=1) * 1.15) - low)


def show(
    task: dict[str, Any], row: dict[str, Any], bounds: dict[int, float], scale: Scale
) -> dict[str, Any]:
    """A row of a table: texts, and the bar."""
    found: dict[str, Any] = {
        "name": row["rung"] + (f" ×{row['threads']}" if row["threads"] > 1 else ""),
        "by": row["by"] if row["by"] not in ("ours", row["rung"]) else "",
        "idea": row.get("idea", ""),
        "peer": row["reference"],
        "wrong": row.get("wrong"),
        "why_not": why_not(row),
        "figures": figures(row),
        "bar": None,
        "tip": "",
        "verdict": "",
        "words": "",
    }
    if "summary" in row:
        what = row["summary"]
        found["bar"] = bar(row, bounds.get(row["threads"]), scale)
        found["tip"] = tip(task, row, found["name"])
        if ratio_of(row):
            found["verdict"] = what["verdict"]
            found["words"] = words(row)
    return found


def why_not(row: dict[str, Any]) -> str:
    if row.get("wrong"):
        return "WRONG"
    if row.get("offered") is False:
        return "not offered"
    if not row["able"]:
        return "too slow"
    return "" if "summary" in row else "no turn"


def ratio_of(row: dict[str, Any]) -> dict[str, float] | None:
    """What a rung gained over the one above; of a reference, its time by ours."""
    return row["summary"].get("by_ours" if row["reference"] else "gain")


def words(row: dict[str, Any]) -> str:
    return (WORDS_OF_OURS if row["reference"] else WORDS)[row["summary"]["verdict"]]


def bar(row: dict[str, Any], roof: float | None, scale: Scale) -> Bar:
    what, ratio = row["summary"], ratio_of(row)
    speed = what["flops_per_second"]
    own, at = scale.place(speed), None if roof is None else scale.place(roof)
    if row["reference"]:
        return Bar(own, own, at, "reference")
    if ratio is None:
        return Bar(own, own, at, "first")
    start, end = sorted((own, scale.place(speed / ratio["median"])))
    return Bar(start, end, at, f"{what['verdict']} {'up' if ratio['median'] >= 1 else 'down'}")


def figures(row: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """By column, a number and what stands below it."""
    found: dict[str, tuple[str, str]] = {}
    if "summary" in row:
        what = row["summary"]
        found["ms"] = (milliseconds(what["median"]), "")
        if ratio := ratio_of(row):
            low, high = (number(ratio[name]) for name in ("low", "high"))
            found["gain"] = (number(ratio["median"]), f"{low}–{high}")
        found["GFLOP/s"] = (f"{what['flops_per_second'] / GIGA:.2f}", "")
        found["GB/s"] = (f"{what['bytes_per_second'] / GIGA:.2f}", "")
        if "share" in what:
            found["of limit"] = (percent(what["share"]["median"]), what["limit"])
    if row.get("compile_seconds") is not None:
        kept = row["compile_seconds"] == 0
        found["compile s"] = ("kept", "") if kept else (f"{row['compile_seconds']:.2f}", "")
    if row.get("first_seconds") is not None:
        found["first ms"] = (milliseconds(row["first_seconds"]), "")
    if row.get("packed") is not None:
        found["packed"] = (percent(row["packed"]), "")
    return found


def percent(share: float) -> str:
    """Never rounded to nothing."""
    return f"{share:.0%}" if share >= 0.01 else f"{100 * share:.1g}%"


def tip(task: dict[str, Any], row: dict[str, Any], name: str) -> str:
    """What is shown of a bar or a point when pointed at: line by line."""
    what = row["summary"]
    turns = sum(turn is not None for turn in row["seconds"])
    lines = [
        f"{name}: {milliseconds(what['median'])} ms"
        f" (min {milliseconds(what['min'])}, max {milliseconds(what['max'])})",
        f"turns in {turns} of {task['rounds']} rounds",
    ]
    if ratio := ratio_of(row):
        over = "its time by ours" if row["reference"] else "over the serial rung above"
        lines.append(f"{over}: {gain(ratio)} at {ratio['coverage']:.0%}, {words(row)}")
    lines.append(
        f"{what['flops_per_second'] / GIGA:.3g} GFLOP/s, {what['bytes_per_second'] / GIGA:.3g} GB/s"
    )
    if share := what.get("share"):
        low, high = (percent(share[end]) for end in ("low", "high"))
        lines.append(f"{percent(share['median'])} ({low}–{high}) of the limit, {what['limit']}")
    return "\n".join(lines)
