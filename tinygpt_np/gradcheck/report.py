"""Draws reports: one tensor a row, or one report a row."""

import io
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from rich.console import Console, Group
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

# No line is so wide.
WIDTH = 10_000
ROOM_FOR_ALL = 105
NAMES = ("tensor", "shape", "checked", "worst at")
FIGURES = ("analytic", "numeric", "absolute", "relative", "bound", "headroom")
COLORS = {"ok": "green", "zero": "green", "wrong": "bold red"}


@dataclass(frozen=True)
class Row:
    """What was found of one tensor.

    index: the worst place, or the number of the worst direction; analytic, numeric: the derivative
    there, by hand and by the oracle; absolute: how far apart they lie. relative: the error of the
    tensor as a share of its norm; bound: the largest that passes; headroom: how many times smaller
    the error is than what passes, in the tensor or in the worst element, whichever is nearer.
    Of a gradient that is zero, relative has no meaning and bound is the largest error at its index.
    With the Taylor slope, relative is the slope, and bound the smallest that passes.
    checked: elements or directions; skipped: those at a kink, where there is no derivative.
    problems: all that is wrong; cause: what a wrong gradient looks like.
    """

    name: str
    shape: tuple[int, ...]
    oracle: str
    by_element: bool
    checked: int
    skipped: int
    index: tuple[int, ...]
    analytic: float
    numeric: float
    absolute: float
    relative: float
    bound: float
    headroom: float
    is_zero: bool = False
    problems: tuple[str, ...] = ()
    cause: str = ""

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def verdict(self) -> str:
        """ok, zero (right, and nothing but rounding), or wrong."""
        return "wrong" if self.problems else "zero" if self.is_zero else "ok"


@dataclass(frozen=True)
class Report:
    """What was found of one operation, block or model. rows: one a tensor. seed: reproduces it.

    notes: what is worth knowing though nothing is wrong.
    """

    title: str
    rows: tuple[Row, ...]
    seed: int
    notes: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        return bool(self.rows) and all(row.ok for row in self.rows)

    @property
    def worst(self) -> Row:
        """The first wrong row, or the one with the least headroom."""
        return min(self.rows, key=lambda row: (row.ok, row.headroom))

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that JSON knows; a number that is not finite becomes null."""
        rows = [asdict(row) | {"verdict": row.verdict} for row in self.rows]
        whole = {"title": self.title, "ok": self.ok, "seed": self.seed, "notes": self.notes}
        return finite({**whole, "rows": rows})

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), allow_nan=False)

    def __str__(self) -> str:
        return as_text(self)


def finite(value: Any) -> Any:
    """The value with every number that is not finite replaced by None."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            items = cast(dict[str, Any], value).items()
            return {key: finite(part) for key, part in items}
        case list() | tuple():
            return [finite(part) for part in cast(list[Any], value)]
        case _:
            return value


def as_text(report: Report) -> str:
    """The report as plain text, for print() and for test output."""
    out = io.StringIO()
    Console(file=out, width=WIDTH, highlight=False).print(draw(report))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def draw(report: Report, width: int = WIDTH) -> Group:
    """One report: a row a tensor, and below it what is wrong, in words."""
    color = "green" if report.ok else "bold red"
    verdict = "every gradient is right" if report.ok else "WRONG"
    title = Text.from_markup(f"[bold]{escape(report.title)}[/bold]  [{color}]{verdict}[/{color}]")
    parts: list[Table | Text | Padding] = [title, tensor_table(report.rows, width)]
    for row in report.rows:
        parts += [Text(f"{row.name}: {problem}", style="red") for problem in row.problems]
        if row.cause:
            cause = Text(f"likely cause: {row.cause}")
            parts.append(Padding(cause, (0, 0, 0, 4), expand=False))
    parts += [Text(f"note: {note}") for note in report.notes]
    if not report.ok:
        parts.append(Text(f"seed={report.seed} reproduces it"))
    return Group(*parts)


def tensor_table(rows: Sequence[Row], width: int) -> Table:
    """One row a tensor; without what one can do without where there is no room for all."""
    names, figures = NAMES, FIGURES
    if width < ROOM_FOR_ALL:
        names, figures = (
            NAMES[:1] + NAMES[-1:],
            tuple(figure for figure in FIGURES if figure not in ("absolute", "bound")),
        )
    table = table_of(names, figures)
    for row in rows:
        texts = (
            escape(row.name), shape_text(row.shape), checked(row), place(row),
            value(row.analytic), value(row.numeric), error(row.absolute), relative(row),
            error(row.bound), headroom(row),
        )  # fmt: skip
        cells: dict[str, str] = dict(zip((*NAMES, *FIGURES), texts, strict=True))
        table.add_row(*(cells[name] for name in (*names, *figures)), verdict_text(row))
    return table


def summary_table(reports: Sequence[Report]) -> Table:
    """One row a report, with its worst tensor."""
    names = ("checked", "oracle", "worst tensor")
    table = table_of(names, ("tensors", "relative", "bound", "headroom"))
    for report in reports:
        row = report.worst
        oracles = ", ".join(dict.fromkeys(row.oracle for row in report.rows))
        table.add_row(
            escape(report.title), oracles, escape(row.name), str(len(report.rows)), relative(row),
            error(row.bound), headroom(row), verdict_text(row),
        )  # fmt: skip
    return table


def table_of(names: Sequence[str], figures: Sequence[str]) -> Table:
    """A table of names, figures and a verdict; where it is narrow it folds, and cuts nothing."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold")
    for figure in figures:
        table.add_column(figure, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    return table


def wide(console: Console) -> Console:
    """The console; in its place, where nobody looks at a terminal, one for whole lines."""
    if console.is_terminal or "COLUMNS" in os.environ:
        return console
    return Console(width=WIDTH, highlight=False)


def shape_text(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"


def checked(row: Row) -> str:
    """How many elements, of how many; or how many directions."""
    if not row.by_element:
        return f"{row.checked} dir."
    return f"{row.checked} of {row.checked + row.skipped}" if row.skipped else str(row.checked)


def place(row: Row) -> str:
    if math.isnan(row.analytic):
        return "-"
    return str(list(row.index)) if row.by_element else f"dir. {row.index[0]}"


def relative(row: Row) -> str:
    is_slope = row.oracle == "Taylor slope" and not math.isnan(row.relative)
    return f"h^{row.relative:.2f}" if is_slope else error(row.relative)


def value(number: float) -> str:
    return "-" if math.isnan(number) else f"{number:.6g}"


def error(number: float) -> str:
    return "-" if not math.isfinite(number) else "0" if number == 0 else f"{number:.1e}"


def headroom(row: Row) -> str:
    if not row.ok or not math.isfinite(row.headroom):
        return "-"
    return f"{row.headroom:.2g}×" if row.headroom < 100 else f"{row.headroom:.0f}×"


def verdict_text(row: Row) -> str:
    color = COLORS[row.verdict]
    return f"[{color}]{row.verdict}[/{color}]"
