"""Tables on the terminal: one per comparison, and the limits of the machine."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape, render
from rich.table import Table

from benchmarks.cases.flops import EXP_FLOPS, TANH_FLOPS
from benchmarks.harness.analysis import FASTER, SAME, SLOWER
from benchmarks.render import cells
from benchmarks.render.cells import FAILED, GIGA, MINE, WRONG, limit_name, number, several

SIGNS = {FASTER: "[green]▲[/green]", SLOWER: "[red]▼[/red]", SAME: "[dim]~[/dim]"}
UNRESOLVED = "[yellow]?[/yellow]"
NAME = "rung"  # the column of names, whose header is empty
COLUMNS = (
    NAME, "compile s", "first ms", "ms", "min – max", "gain", "tokens/s", "GFLOP/s", "GB/s",
    "of limit", "packed", "IPC", "misses", "MB", "warm-up s",
)  # fmt: skip
# The columns that are left out first in a narrow window; the page shows them all.
DISPENSABLE = (
    "misses", "IPC", "first ms", "compile s", "GB/s", "packed", "warm-up s", "GFLOP/s",
    "min – max", "MB", "of limit",
)  # fmt: skip
# A name is wrapped to no fewer characters than this. Spaces between two columns.
LEAST_NAME, BETWEEN = 18, 2
# The last lines of a traceback, and the first of a loop, that are shown.
TRACED, LOOP_LINES = 4, 24
LEGEND = (
    "gain: speedup over the serial rung above, of your kernels over our trained one; of references,"
    " their time divided by that of our trained kernel. ▲ ▼: more than a rung gains over itself"
    " (A/A); ~ not resolved; ? no verdict. of limit: the time that the FLOPs (com) or bytes (mem)"
    f" take at best, divided by the time; an exp counts as {EXP_FLOPS} FLOPs, a tanh as"
    f" {TANH_FLOPS}. N rows, C channels, K outputs, V vocabulary, B batch, T sequence length,"
    " H heads, D head size, P elements."
)
ASM = (
    "packed: fraction of vector instructions among the arithmetic in the machine code."
    " hottest loop: that with most samples of where the kernel spends its time, and the percentage"
    " at each instruction; without samples, the deepest with the most FLOPs per iteration."
)


def table_of(title: str, *columns: str) -> Table:
    """Return an empty table; all columns but the first are aligned to the right."""
    table = Table(
        title=title or None, title_justify="left", box=box.SIMPLE_HEAD,
        padding=(0, BETWEEN - 1, 0, 0), pad_edge=False, show_edge=False,
    )  # fmt: skip
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    return table


def show_limits(found: dict[str, Any], console: Console) -> None:
    """Show the limits of the machine and the legend."""
    rows: dict[str, dict[str, str]] = {}
    for limit in found["limits"]:
        median, low, high = (number(value / GIGA) for value in limit["rate"][:3])
        cell = f"{median} ({low}–{high})"
        rows.setdefault(limit_name(limit), {})[several(limit["threads"])] = cell
    heads = [several(threads) for threads in found["options"]["threads"]]
    cell = max(needed(rows.values(), heads).values(), default=0) + BETWEEN
    per_table = max(1, (console.width - max(map(len, rows), default=0)) // cell)
    console.print("limits of this machine", style="bold")
    for start in range(0, len(heads), per_table):
        part = heads[start : start + per_table]
        table = table_of("", "", *part)
        for name, each in rows.items():
            table.add_row(name, *(each.get(head, "") for head in part))
        console.print(table)
        console.print()
    console.print(LEGEND, style="dim")
    if found["options"].get("asm"):
        console.print(ASM, style="dim")


def show(record: dict[str, Any], console: Console) -> None:
    """Show the table of a comparison: the rungs from the first on, then the others."""
    marks: dict[str, int] = {}
    rows = [
        (row, name, row_cells(record, row, name, marks))
        for row, name in zip(record["rows"], cells.names(record["rows"]), strict=True)
    ]
    shown = [each for *_, each in rows]
    columns = [name for name in COLUMNS if name == NAME or any(name in each for each in shown)]
    table, columns = table_that_fits(shown, columns, DISPENSABLE, console.width)
    for part in cells.PARTS:
        for row, _, each in rows:
            if cells.part(row) == part:
                table.add_row(*(each.get(column, "") for column in columns))
        table.add_section()
    console.print(f"\n{title(record)}")
    console.print(table, crop=False)
    for text, mark in marks.items():
        console.print(escape(f"[{mark}] {text}"), style="dim")
    for row, name, _ in rows:
        show_failure(row, name, console)
        show_loop(record, row, name, console)
    for text in cells.against_in_words(record):
        console.print(escape(text))
    footer = [*cells.limits_in_words(record), cells.controls_in_words(record)]
    if said := "; ".join(filter(None, footer)):
        console.print(escape(said))


def table_that_fits(
    rows: Sequence[Mapping[str, str]], columns: list[str], dispensable: Iterable[str], width: int,
    least_name: int = LEAST_NAME,
) -> tuple[Table, list[str]]:  # fmt: skip
    """Return an empty table for the cells of rows, and the columns that it has.

    In a narrow window names are wrapped, at `least_name` characters or more, and dispensable
    columns are left out, in their order. A table that is still too wide is wider than the window,
    because no number is cut.
    """
    widths = needed(rows, columns)
    least = widths | {NAME: min(widths[NAME], least_name)}
    for name in dispensable:
        if sum(least[column] + BETWEEN for column in columns) - BETWEEN > width:
            columns = [column for column in columns if column != name]
    others = sum(widths[name] + BETWEEN for name in columns[1:])
    widths[NAME] = min(widths[NAME], max(width - others, least_name))
    table = table_of("", *columns)
    table.width = widths[NAME] + others
    for column in table.columns:
        column.width = widths[str(column.header)]
    names = table.columns[0]
    names.header, names.no_wrap, names.overflow = "", False, "fold"
    return table, columns


def title(record: Mapping[str, Any]) -> str:
    """Return what is compared, in markup."""
    name = record.get("name") or f"{record['operation']} {record['direction']}, {record['shape']}"
    parts = [cells.sizes(record), cells.costs(record), f"{record['rounds']} rounds"]
    if caches := record.get("caches"):
        parts.append(f"{caches} caches")
    return f"[bold]{escape(name)}[/bold]: {'; '.join(escape(part) for part in parts if part)}"


def needed(rows: Collection[Mapping[str, str]], columns: Iterable[str]) -> dict[str, int]:
    """Return the characters that the widest cell of each column takes."""
    texts = {name: [*name.split("\n"), *(row.get(name, "") for row in rows)] for name in columns}
    return {name: max(render(text).cell_len for text in each) for name, each in texts.items()}


def row_cells(
    record: Mapping[str, Any], row: Mapping[str, Any], name: str, marks: dict[str, int]
) -> dict[str, str]:
    """Return the cells of a row by column, in markup; `marks` numbers the notes of all rows."""
    numbers = [marks.setdefault(text, len(marks) + 1) for text in cells.notes(row)]
    found = {NAME: escape("".join([name, *(f" [{number}]" for number in numbers)]))}
    for column, (value, note) in cells.figures(record, row).items():
        if column == "gain":
            value += f" ({note})" * bool(note) + f" {sign(record, row)}".rstrip()
        elif column == "of limit":
            value += f" {note[:3]}"
        found[column] = value
    if reason := cells.why_not(row):
        found["ms"] = f"[{'red' if reason in (WRONG, FAILED) else 'dim'}]{reason}[/]"
    return found


def sign(record: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Return the sign of a verdict in markup; nothing is judged without a control."""
    if row.get("unresolved"):
        return UNRESOLVED
    return SIGNS[row["verdict"]] if record["controls"] else ""


def show_failure(row: Mapping[str, Any], name: str, console: Console) -> None:
    """Show why a row is wrong or failed, and the lines of the traceback that say where."""
    if reason := row.get("wrong") or row.get("failed"):
        state = f"is {WRONG}" if row.get("wrong") else FAILED
        console.print(f"[red]{escape(name)} {state}:[/red] {escape(reason)}")
        # From Python 3.11 on, carets mark the place in a line.
        every = (row.get("traceback") or "").splitlines()
        lines = [line for line in every if line.strip(" ^~")]
        crashed = any("most recent call first" in line for line in lines)
        for line in lines[:TRACED] if crashed else lines[-TRACED:]:
            console.print(escape(f"  {line}"), style="dim")


def show_loop(record: dict[str, Any], row: Mapping[str, Any], name: str, console: Console) -> None:
    """Show the hottest loop of a trained kernel on one thread, or of one of the user's."""
    if row.get("loop") and row["threads"] == 1 and (row["trained"] or row["by"] == MINE):
        *lines, _ = row["loop"]
        console.print(escape(f"hottest loop of {name}: {cells.loop_in_words(record, row)}"))
        for line in lines[:LOOP_LINES]:
            console.print(escape(line), style="dim", no_wrap=True, overflow="ellipsis")
        if len(lines) > LOOP_LINES:
            console.print("  … the others are on the page", style="dim")
