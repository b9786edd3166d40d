"""Speed against size: the panels of a sweep, and their tables on the terminal.

Memory-bound operations are shown in GB/s, others in GFLOP/s, with the roofline at every
size: the peak, or the bandwidth of what the arrays fit, whichever allows less.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape

from benchmarks import cases
from benchmarks.harness.analysis import Interval, bandwidth, rates_of
from benchmarks.render.cells import FAILED, GIGA, MINE, WRONG, is_timed, label, names, number
from benchmarks.render.cells import why_not as reason_of
from benchmarks.render.report import BETWEEN, UNRESOLVED, needed, show_failure, table_of

# An operation that takes fewer FLOPs per byte at its largest size is shown in GB/s.
FEW_FLOPS = 6.0
LIMIT, RUNG, TRAINED = "limit", "rung", "trained"
Records = Sequence[Mapping[str, Any]]


@dataclass
class Line:
    """The speeds of a candidate, or a limit, by size.

    kind: LIMIT, RUNG, TRAINED, MINE or the name of a reference. missing: why there is no speed.
    doubts: why a speed proves nothing.
    """

    name: str
    kind: str
    threads: int
    speeds: dict[int, Interval] = field(default_factory=dict[int, Interval])
    missing: dict[int, str] = field(default_factory=dict[int, str])
    doubts: dict[int, str] = field(default_factory=dict[int, str])


@dataclass(frozen=True)
class Panel:
    """The results of a direction. letters: those that were swept, such as N=C=K."""

    operation: str
    direction: str
    letters: str
    unit: str
    sizes: Sequence[int]
    lines: Sequence[Line]

    @property
    def title(self) -> str:
        """Operation and direction."""
        return f"{self.operation} {self.direction}"


def panels(found: Mapping[str, Any]) -> list[Panel]:
    """Return the panels of a result."""
    by_direction = itertools.groupby(
        found["cases"], key=lambda record: (record["operation"], record["direction"])
    )
    return [panel(list(records), found["options"]["sweep"]) for _, records in by_direction]


def panel(records: Records, sweep: Mapping[str, Any]) -> Panel:
    """Return the panel of the records of one direction."""
    first, last = records[0], records[-1]
    letters = [*(sweep["letters"] or cases.swept(first["operation"]))]
    memory = last["flops"] < FEW_FLOPS * last["bytes"]
    amount, unit = ("bytes", "GB/s") if memory else ("flops", "GFLOP/s")
    lines: dict[Any, Line] = {}
    for record in records:
        size, giga = record["sizes"][letters[0]], record[amount] / GIGA
        for name, row in zip(names(record["rows"]), record["rows"], strict=True):
            line = lines.setdefault((name, row["by"]), Line(name, kind(row), row["threads"]))
            if is_timed(row):
                median, low, high, coverage = row["seconds"]
                line.speeds[size] = Interval(giga / median, giga / high, giga / low, coverage)
                if row.get("unresolved"):
                    line.doubts[size] = row["unresolved"]
            else:
                line.missing[size] = reason_of(row)
        for threads, rates in rates_of(dict(record)).items():
            line = lines.setdefault(
                threads, Line(label({"rung": LIMIT, "threads": threads}), LIMIT, threads)
            )
            seconds = max(record["flops"] / rates["peak"], record["bytes"] / bandwidth(rates))
            speed = giga / seconds
            line.speeds[size] = Interval(speed, speed, speed, 1.0)
    # Limits last.
    ordered = sorted(lines.values(), key=lambda line: line.kind == LIMIT)
    sizes = [record["sizes"][letters[0]] for record in records]
    return Panel(first["operation"], first["direction"], "=".join(letters), unit, sizes, ordered)


def kind(row: Mapping[str, Any]) -> str:
    """Return the kind of the line of a row."""
    if row["by"] == MINE:
        return MINE
    if row["reference"]:
        return f"{row['rung']} {row['by']}"
    return TRAINED if row["trained"] else RUNG


def show(whole: Mapping[str, Any], direction: tuple[str, str], console: Console) -> None:
    """Show the table of one direction, a line per size; in a narrow window as several tables."""
    records = [
        each for each in whole["cases"] if (each["operation"], each["direction"]) == direction
    ]
    if not records:
        return
    found = panel(records, whole["options"]["sweep"])
    fixed = [
        f"{letter} {size:,}"
        for letter, size in records[0]["sizes"].items()
        if letter not in found.letters
    ]
    said = f"{found.unit} at each size {found.letters}"
    console.print("; ".join([f"\n[bold]{found.title}[/bold]: {said}", *fixed]))
    heads = [line.name for line in found.lines]
    rows = [
        {"": f"{size:,}"} | {line.name: cell(line, size) for line in found.lines}
        for size in found.sizes
    ]
    widths = needed(rows, ["", *heads])
    while heads:
        totals = itertools.accumulate(widths[head] + BETWEEN for head in heads)
        count = sum(widths[""] + total <= console.width for total in totals) or 1
        table = table_of("", "", *map(escape, heads[:count]))
        for row in rows:
            table.add_row(row[""], *(row[head] for head in heads[:count]))
        console.print(table, crop=False)
        heads = heads[count:]
    for line in (line for line in found.lines if line.doubts):
        at = ", ".join(f"{size:,}" for size in line.doubts)
        reason, *others = dict.fromkeys(line.doubts.values())
        more = ", and the like" if others else ""
        console.print(escape(f"? {line.name} at {at}: {reason}{more}"), style="dim")
    for record, size in zip(records, found.sizes, strict=True):
        for name, row in zip(names(record["rows"]), record["rows"], strict=True):
            show_failure(row, f"{name} at {found.letters} = {size:,}", console)


def cell(line: Line, size: int) -> str:
    """Return the speed at a size in markup, or why there is none."""
    if size in line.speeds:
        doubt = UNRESOLVED if size in line.doubts else " "
        return number(line.speeds[size].median) + (f" {doubt}" if line.doubts else "")
    reason = line.missing.get(size, "")
    return f"[{'red' if reason in (WRONG, FAILED) else 'dim'}]{reason}[/]"
