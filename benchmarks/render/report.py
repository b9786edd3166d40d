"""Tables on the terminal: one per comparison, and the limits of the machine."""

import math
from collections.abc import Callable
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.harness.analysis import FASTER, SAME, SLOWER, Interval, bandwidth, rates_of

GIGA = 1e9
SIGNS = {FASTER: "[green]▲[/green]", SLOWER: "[red]▼[/red]", SAME: "[dim]~[/dim]"}
WIDTHS = {
    "": 15, "compile s": 9, "first ms": 8, "ms": 8, "min – max": 15, "gain": 20, "tokens/s": 8,
    "GFLOP/s": 7, "GB/s": 6, "of limit": 8, "packed": 6, "MB": 6, "warm-up s": 9,
}  # fmt: skip
# The columns that are left out first in a narrow window; the page shows them all.
DISPENSABLE = (
    "first ms", "compile s", "GB/s", "packed", "warm-up s", "GFLOP/s", "min – max", "MB",
    "of limit",
)  # fmt: skip
LEGEND = (
    "gain: speedup over the serial rung above; for a reference (below the line), its time divided"
    " by ours on as many threads. ▲ ▼: more than a rung gains over itself (A/A); ~: not resolved."
    " of limit: the longer of FLOPs at peak (com) and bytes at bandwidth (mem), divided by the"
    " time. N rows, C channels, K outputs, V vocabulary, B batch, T sequence length, H heads,"
    " D head size, P elements."
)
PACKED = "packed: fraction of vector instructions among the arithmetic in the machine code."


def percent(fraction: float) -> str:
    """Return a percentage that is never rounded to zero."""
    return f"{fraction:.0%}" if fraction >= 0.01 else f"{100 * fraction:.1g}%"


def milliseconds(seconds: float) -> str:
    """Return milliseconds to four digits."""
    return f"{seconds * 1e3:.4g}" if seconds >= 1e-4 else f"{seconds * 1e3:.4f}"


def number(value: float) -> str:
    """Return a number to about three digits."""
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


def table_of(title: str, *columns: str) -> Table:
    """Return an empty table; all columns but the first are aligned to the right."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    return table


def show_limits(found: dict[str, Any], console: Console) -> None:
    """Show the limits of the machine and the legend."""
    rows: dict[str, list[str]] = {}
    for limit in found["limits"]:
        median, low, high = (value / GIGA for value in limit["rate"][:3])
        rows.setdefault(limit_name(limit), []).append(f"{median:.0f} ({low:.0f} – {high:.0f})")
    threads = map(several, found["options"]["threads"])
    table = table_of("limits of this machine", "limit", *threads)
    for label, cells in rows.items():
        table.add_row(label, *cells)
    console.print(table)
    console.print(LEGEND, style="dim")
    if found["options"].get("asm"):
        console.print(PACKED, style="dim")


def limit_name(limit: dict[str, Any]) -> str:
    """Return the name of a limit of the machine with its unit."""
    return f"triad, {limit['where']}, GB/s" if limit["where"] else f"{limit['name']}, GFLOP/s"


def show(record: dict[str, Any], console: Console) -> None:
    """Show the table of a comparison: the rungs from the first on, then the references."""
    shown = [(row["reference"], cells(record, row)) for row in record["rows"]]
    columns = [name for name in WIDTHS if any(name in row for _, row in shown)]
    for name in DISPENSABLE:
        if sum(WIDTHS[column] + 2 for column in columns) > console.width and name in columns:
            columns.remove(name)
    name = record.get("name") or f"{record['operation']} {record['direction']}, {record['shape']}"
    parts = [sizes(record), costs(record), f"{record['rounds']} rounds"]
    title = f"[bold]{escape(name)}[/bold]: {'; '.join(escape(part) for part in parts if part)}"
    table = table_of(title, *columns)
    for part in (False, True):
        for reference, row in shown:
            if reference == part:
                table.add_row(*(row.get(column, "") for column in columns))
        table.add_section()
    console.print()
    console.print(table)
    if footer := "; ".join([*limits_in_words(record), *controls_in_words(record)]):
        console.print(escape(footer))
    for row in record["rows"]:
        if row.get("wrong"):
            console.print(f"[red]{escape(row['rung'])} is WRONG:[/red] {escape(row['wrong'])}")


def sizes(record: dict[str, Any]) -> str:
    """Return the sizes of a case in words."""
    return ", ".join(f"{letter} {size:,}" for letter, size in record.get("sizes", {}).items())


def costs(record: dict[str, Any]) -> str:
    """Return the FLOPs and bytes of a case in words, with decimal prefixes."""
    found: list[str] = []
    for key, unit in (("flops", "FLOP"), ("bytes", "B")):
        if value := record.get(key):
            power = min(int(math.log10(value)) // 3, 4)
            size = f"{value / 1000**power:.3g}" if power else f"{value:.0f}"
            found.append(f"{size} {' kMGT'[power].strip()}{unit}")
    return ", ".join(found)


def cells(record: dict[str, Any], row: dict[str, Any]) -> dict[str, str]:
    """Return the cells of a row by column."""
    found = {"": escape(label(row))}
    for column, (value, note) in figures(record, row).items():
        if column == "gain":
            sign = f" {SIGNS[row['verdict']]}" if record["controls"] else ""
            value += (f" ({note})" if note else "") + sign
        elif column == "of limit":
            value += f" {note[:3]}"
        found[column] = value
    if reason := why_not(row):
        found["ms"] = f"[{'red' if row.get('wrong') else 'dim'}]{reason}[/]"
    return found


def figures(record: dict[str, Any], row: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the figures of a row by column, each as a number and a note."""
    found: dict[str, tuple[str, str]] = {}
    if "seconds" in row:
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
                found[unit] = (f"{record[name] / median / GIGA:.2f}", "")
        if "fraction" in row:
            found["of limit"] = (percent(row["fraction"].median), row["bound"])
    for key, (column, words) in PAID.items():
        if row.get(key) is not None:
            found[column] = (words(row[key]), "")
    return found


def label(row: dict[str, Any]) -> str:
    """Return the name of a row with its threads, if it has several."""
    return row["rung"] + (f" ×{row['threads']}" if row["threads"] > 1 else "")


def gain_of(row: dict[str, Any]) -> Interval | None:
    """Return the speedup over the rung above or, of a reference, its time divided by ours."""
    return row.get("by_ours" if row["reference"] else "gain")


def why_not(row: dict[str, Any]) -> str:
    """Return why a row has no times."""
    if row.get("wrong"):
        return "WRONG"
    if row.get("offered") is False:
        return "not offered"
    if not row.get("able", True):
        return "too slow"
    return "" if "seconds" in row else "no turn"


def limits_in_words(record: dict[str, Any]) -> list[str]:
    """Return the peak and the bandwidth of the comparison, for each number of threads."""
    return [
        f"{several(threads)}: {rates['peak'] / GIGA:.0f} GFLOP/s"
        + (f", {bandwidth(rates) / GIGA:.0f} GB/s ({record['cache'][str(threads)]})"
           if "triad" in rates else "")
        for threads, rates in rates_of(record).items()
    ]  # fmt: skip


def controls_in_words(record: dict[str, Any]) -> list[str]:
    """Return what the control rungs gained over themselves."""
    return [
        f"A/A: {label(control)} against itself {interval(control['ratio'])}"
        for control in record["controls"]
        if control["ratio"]
    ]
