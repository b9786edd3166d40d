"""The kernel benchmark on the terminal."""

from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.standing import FASTER, SAME, SLOWER, bandwidth

SIGNS = {FASTER: "[green]▲[/green]", SLOWER: "[red]▼[/red]", SAME: "[dim]~[/dim]"}
WIDTHS = {
    "rung": 15, "compile s": 9, "first ms": 8, "ms": 8, "gain": 20, "GFLOP/s": 7, "GB/s": 6,
    "of limit": 8, "packed": 6,
}  # fmt: skip
# What goes first where a window has no room; the page has it all.
DISPENSABLE = ("first ms", "compile s", "GB/s", "packed", "GFLOP/s", "of limit")
LEGEND = (
    "gain: times as fast as the serial rung above; of a reference, its time by that of our last"
    " rung on as many threads. ▲ ▼: beyond what a rung gains over itself (A/A); ~: may be chance."
    " of limit: how near the time is to the longer of two, that of the FLOPs at the peak (com) and"
    " that of the bytes at the bandwidth of where they lie (mem). N rows, C channels, K outputs, V"
    " vocabulary, B texts, T tokens, H heads, D their size, P numbers."
)
PACKED = "packed: of the arithmetic instructions, wherever they stand, those that work on vectors."


def show_limits(found: dict[str, Any], console: Console) -> None:
    """What bounds kernels here, who is not there, and how to read what comes."""
    table = Table(title="limits of this machine", title_justify="left", box=box.SIMPLE_HEAD)
    names = ["limit"]
    rows: dict[str, list[str]] = {}
    for limit in found["limits"]:
        unit, label = ("GFLOP/s", limit["name"])
        if limit["where"]:
            unit, label = "GB/s", f"triad, {limit['where']}"
        rows.setdefault(f"{label}, {unit}", []).append(span(limit["rate"]))
    names += [f"{count} thread{'s' * (count > 1)}" for count in found["options"]["threads"]]
    for name in names:
        table.add_column(name, justify="left" if name == "limit" else "right")
    for label, cells in rows.items():
        table.add_row(label, *cells)
    console.print(table)
    for reason in found["left_out"].values():
        console.print(f"[yellow]left out:[/yellow] {escape(reason)}")
    console.print(LEGEND, style="dim")
    if console.width < sum(WIDTHS.values()) + 2 * len(WIDTHS):
        console.print("A wider window shows more columns; the page has them all.", style="dim")
    if found["options"]["asm"]:
        console.print(PACKED, style="dim")


def span(estimate: dict[str, float]) -> str:
    """In units of 1e9."""
    median, low, high = (estimate[name] / 1e9 for name in ("median", "low", "high"))
    return f"{median:.0f} ({low:.0f} – {high:.0f})"


def show(record: dict[str, Any], console: Console) -> None:
    """A task's table: the rungs from the first on, then the references."""
    packed = any(row.get("packed") is not None for row in record["rows"])
    table = Table(title=title(record), title_justify="left", box=box.SIMPLE_HEAD)
    columns = ["rung", "compile s", "first ms", "ms", "gain", "GFLOP/s", "GB/s", "of limit"]
    if packed:
        columns.append("packed")
    for name in DISPENSABLE:
        if sum(WIDTHS[column] + 2 for column in columns) > console.width and name in columns:
            columns.remove(name)
    for name in columns:
        table.add_column(name, justify="left" if name == "rung" else "right", no_wrap=True)
    references = [row for row in record["rows"] if row["reference"]]
    rungs = [row for row in record["rows"] if not row["reference"]]
    for row in rungs:
        table.add_row(*cells(row, columns))
    if references:
        table.add_section()
    for row in references:
        table.add_row(*cells(row, columns))
    console.print()
    console.print(table)
    console.print(below(record))
    for row in record["rows"]:
        if row.get("wrong"):
            console.print(f"[red]{escape(row['rung'])} is WRONG:[/red] {escape(row['wrong'])}")


def title(record: dict[str, Any]) -> str:
    sizes = ", ".join(f"{letter} {size:,}" for letter, size in record["sizes"].items())
    cost = f"{amount(record['flops'])}FLOP, {amount(record['bytes'])}B"
    name = f"{record['operation']} {record['direction']}"
    return f"[bold]{name}[/bold], {record['shape']}: {sizes}; {cost}; {record['rounds']} rounds"


def amount(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} "


def cells(row: dict[str, Any], columns: list[str]) -> list[str]:
    found = {"rung": escape(with_threads(row)), "ms": why_not(row)}
    if row.get("compile_seconds") is not None:
        kept = row["compile_seconds"] == 0
        found["compile s"] = "[dim]kept[/dim]" if kept else f"{row['compile_seconds']:.2f}"
    if row.get("first_seconds") is not None:
        found["first ms"] = milliseconds(row["first_seconds"])
    if "summary" in row:
        what = row["summary"]
        found |= {
            "ms": milliseconds(what["median"]),
            "GFLOP/s": f"{what['flops_per_second'] / 1e9:.2f}",
            "GB/s": f"{what['bytes_per_second'] / 1e9:.2f}",
        }
        if "share" in what:
            found["of limit"] = f"{what['share']['median']:.0%} {what['limit'][:3]}"
        ratio = what.get("by_ours" if row["reference"] else "gain")
        if ratio is not None:
            found["gain"] = f"{gain(ratio)} {SIGNS[what['verdict']]}"
    if row.get("packed") is not None:
        found["packed"] = f"{row['packed']:.0%}"
    return [found.get(column, "") for column in columns]


def with_threads(row: dict[str, Any]) -> str:
    several = f" ×{row['threads']}" if row["threads"] > 1 else ""
    return f"{row['rung']}{several}"


def why_not(row: dict[str, Any]) -> str:
    if row.get("wrong"):
        return "[red]WRONG[/red]"
    if row.get("offered") is False:
        return "[dim]not offered[/dim]"
    return "" if row["able"] else "[dim]too slow[/dim]"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.4g}" if seconds >= 1e-4 else f"{seconds * 1e3:.4f}"


def gain(ratio: dict[str, float]) -> str:
    if not ratio["coverage"]:  # One round has no interval.
        return number(ratio["median"])
    low, high = (number(ratio[name]) for name in ("low", "high"))
    return f"{number(ratio['median'])} ({low}–{high})"


def number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def below(record: dict[str, Any]) -> str:
    """The limits beside the rungs, and the controls."""
    lines: list[str] = []
    for threads, cache in record["cache"].items():
        limits = {e["name"]: e["rate"] for e in record["limits"] if str(e["threads"]) == threads}
        if limits and all(limits.values()):
            peak, moved = (f"{rate / 1e9:.0f}" for rate in (limits["peak"], bandwidth(limits)))
            several = "s" * (threads != "1")
            lines.append(f"{threads} thread{several}: {peak} GFLOP/s, {moved} GB/s ({cache})")
    lines += [
        f"A/A: {with_threads(control)} against itself {gain(control['ratio'])}"
        for control in record["controls"]
        if control["ratio"]
    ]
    return escape("; ".join(lines))
