"""Tables on the terminal: one per comparison, and the limits of the machine."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.harness.analysis import FASTER, SAME, SLOWER, bandwidth
from benchmarks.harness.statistics import Interval

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


def show_limits(found: dict[str, Any], console: Console) -> None:
    """Show the limits of the machine, missing peers, and the legend."""
    threads = found["options"]["threads"]
    rows: dict[str, list[str]] = {}
    for limit in found["limits"]:
        label = f"triad, {limit['where']}, GB/s" if limit["where"] else f"{limit['name']}, GFLOP/s"
        median, low, high = (value / GIGA for value in limit["rate"][:3])
        rows.setdefault(label, []).append(f"{median:.0f} ({low:.0f} – {high:.0f})")
    table = Table(title="limits of this machine", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("limit")
    for count in threads:
        table.add_column(several(count), justify="right")
    for label, cells in rows.items():
        table.add_row(label, *cells)
    console.print(table)
    console.print(LEGEND, style="dim")
    if found["options"].get("asm"):
        console.print(PACKED, style="dim")


def show(record: dict[str, Any], console: Console) -> None:
    """Show the table of a comparison: the rungs from the first on, then the references."""
    rows = [cells(record, row) for row in record["rows"]]
    columns = [name for name in WIDTHS if any(name in row for row in rows)]
    for name in DISPENSABLE:
        if sum(WIDTHS[column] + 2 for column in columns) > console.width and name in columns:
            columns.remove(name)
    table = Table(title=title(record), title_justify="left", box=box.SIMPLE_HEAD)
    for name in columns:
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for part in (False, True):
        if part and any(row["reference"] for row in record["rows"]):
            table.add_section()
        for row, row_cells in zip(record["rows"], rows, strict=True):
            if row["reference"] == part:
                table.add_row(*(row_cells.get(column, "") for column in columns))
    console.print()
    console.print(table)
    if footer := below(record):
        console.print(escape(footer))
    for row in record["rows"]:
        if row.get("wrong"):
            console.print(f"[red]{escape(row['rung'])} is WRONG:[/red] {escape(row['wrong'])}")


def title(record: dict[str, Any]) -> str:
    """Return what was compared, what it costs, and the number of rounds."""
    sizes = ", ".join(f"{letter} {size:,}" for letter, size in record.get("sizes", {}).items())
    cost = f"{amount(record['flops'])}FLOP" if record.get("flops") else ""
    cost += f", {amount(record['bytes'])}B" if record.get("bytes") else ""
    name = record.get("name") or f"{record['operation']} {record['direction']}, {record['shape']}"
    parts = [escape(part) for part in (sizes, cost, f"{record['rounds']} rounds") if part]
    return f"[bold]{escape(name)}[/bold]: {'; '.join(parts)}"


def amount(value: float) -> str:
    """Return a number with a decimal prefix."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} "


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
    if (seconds := row.get("compile_seconds")) is not None:
        found["compile s"] = (f"{seconds:.2f}" if seconds else "cached", "")
    if row.get("first_seconds") is not None:
        found["first ms"] = (milliseconds(row["first_seconds"]), "")
    if row.get("packed") is not None:
        found["packed"] = (percent(row["packed"]), "")
    if row.get("memory") is not None:
        found["MB"] = (f"{row['memory'] / 1e6:,.0f}", "")
    if row.get("warm_up_seconds") is not None:
        found["warm-up s"] = (f"{row['warm_up_seconds']:.1f}", "")
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


def percent(fraction: float) -> str:
    """Return a percentage that is never rounded to zero."""
    return f"{fraction:.0%}" if fraction >= 0.01 else f"{100 * fraction:.1g}%"


def milliseconds(seconds: float) -> str:
    """Return milliseconds to four digits."""
    return f"{seconds * 1e3:.4g}" if seconds >= 1e-4 else f"{seconds * 1e3:.4f}"


def interval(ratio: Interval) -> str:
    """Return a ratio with its interval; a single round has none."""
    if not ratio.coverage:
        return number(ratio.median)
    return f"{number(ratio.median)} ({number(ratio.low)}–{number(ratio.high)})"


def number(value: float) -> str:
    """Return a number to about three digits."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def several(threads: int) -> str:
    """Return a number of threads in words."""
    return f"{threads} thread{'s' * (threads != 1)}"


def below(record: dict[str, Any]) -> str:
    """Return the limits that were measured with the rungs, and the controls."""
    return "; ".join([*limits_in_words(record), *controls_in_words(record)])


def limits_in_words(record: dict[str, Any]) -> list[str]:
    """Return the peak and the bandwidth of the comparison, for each number of threads."""
    return [
        f"{several(threads)}: {rates['peak'] / GIGA:.0f} GFLOP/s"
        + (f", {bandwidth(rates) / GIGA:.0f} GB/s ({record['cache'][str(threads)]})"
           if "triad" in rates else "")
        for threads, rates in rates_of(record).items()
    ]  # fmt: skip


def rates_of(record: dict[str, Any]) -> dict[int, dict[str, float]]:
    """Return the rates of the limits by threads and name, where all had a turn."""
    found: dict[int, dict[str, Any]] = {}
    for limit in record["limits"]:
        found.setdefault(limit["threads"], {})[limit["name"]] = limit["rate"]
    return {threads: rates for threads, rates in found.items() if all(rates.values())}


def controls_in_words(record: dict[str, Any]) -> Sequence[str]:
    """Return what the control rungs gained over themselves."""
    return [
        f"A/A: {label(control)} against itself {interval(control['ratio'])}"
        for control in record["controls"]
        if control["ratio"]
    ]
