"""The report of a check, as text, as a terminal table, as JSON and as HTML for notebooks."""

import io
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

# Wider than any line.
WIDTH = 10_000
# The table with all columns is at most this wide.
FULL_WIDTH = 105
# Columns that are left out of a narrower table.
WIDE_ONLY = ("shape", "checked", "absolute", "bound")
# Columns of text, which may be folded; figures are not.
NAMES = ("tensor", "shape", "checked", "worst at", "oracle", "worst tensor")


@dataclass(frozen=True)
class Row:
    """The result for one tensor.

    index: the worst element, or the number of the worst direction. analytic, numeric: the
    derivative there, by hand and by the oracle; absolute: their difference. relative: the error of
    the tensor relative to its norm. bound: the largest relative error that passes. headroom: the
    bound divided by the error, of the tensor or of its worst element, whichever is smaller.

    If the gradient is zero, relative is NaN and bound is the largest error that passes at index.
    With the Taylor slope, relative is the slope and bound the smallest slope that passes.

    checked: the number of elements or directions that have a derivative. skipped: those at a kink,
    compared with the derivatives from both sides. problems: everything that is wrong. unmeasured:
    what could not be measured, or "". cause: the likely mistake. found, expected: the gradient by
    hand and by the oracle, if every element was compared and something is wrong.
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
    unmeasured: str = ""
    cause: str = ""
    found: np.ndarray | None = field(default=None, repr=False, compare=False)
    expected: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def ok(self) -> bool:
        """Whether everything was measured, and nothing is wrong."""
        return not self.messages

    @property
    def messages(self) -> tuple[str, ...]:
        """Everything that is wrong, and what could not be measured."""
        return (*self.problems, self.unmeasured) if self.unmeasured else self.problems

    @property
    def verdict(self) -> str:
        """ok, zero (right, and zero up to rounding), wrong, or unmeasured."""
        if not self.ok:
            return "wrong" if self.problems else "unmeasured"
        return "zero" if self.is_zero else "ok"


@dataclass(frozen=True, repr=False)
class Report:
    """The result for one operation, block or model.

    rows: one per tensor. seed: reproduces the check. notes: information that is not a problem.
    """

    title: str
    rows: tuple[Row, ...]
    seed: int
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every row is right, and there is at least one."""
        return bool(self.rows) and all(row.ok for row in self.rows)

    @property
    def worst(self) -> Row:
        """The first wrong row, one that could not be measured, or that with least headroom."""
        return min(self.rows, key=lambda row: (not row.problems, row.ok, row.headroom))

    @property
    def verdict(self) -> str:
        """Whether every gradient is right, in words."""
        if self.rows and not any(row.problems for row in self.rows):
            return "every gradient is right" if self.ok else "could not be measured"
        return "WRONG"

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the arrays for JSON; numbers that are not finite become None."""
        rows = [
            {
                name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in {**vars(row), "verdict": row.verdict}.items()
                if name not in ("found", "expected")
            }
            for row in self.rows
        ]
        about = {"title": self.title, "ok": self.ok, "seed": self.seed, "notes": self.notes}
        return {**about, "rows": rows}

    def to_json(self) -> str:
        """Return to_dict() as JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def __str__(self) -> str:
        """Return the report as plain text, for print() and for test output."""
        return plain_text(draw(self))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the report for a notebook, with heat maps of the gradients that are wrong."""
        from tinygpt_np.gradcheck import notebook

        def cells(row: Row, name: str) -> str:
            return Text.from_markup(COLUMNS[name](row)).plain

        body = notebook.render(
            "report.html.jinja", report=self, columns=COLUMNS, names=(*NAMES, "verdict"),
            cells=cells, comparison=notebook.comparison,
        )  # fmt: skip
        return notebook.framed(body, str(self))


def plain_text(drawn: RenderableType) -> str:
    """Return what a file would get, in a notebook too.

    There Rich would display it at once, and a kernel sets FORCE_COLOR.
    """
    out = io.StringIO()
    console = Console(
        file=out, width=WIDTH, highlight=False, force_jupyter=False, color_system=None
    )
    console.print(drawn)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def draw(report: Report, width: int = WIDTH) -> Group:
    """Return a table with a row per tensor, followed by the problems in words."""
    color = "green" if report.ok else "bold red"
    title = Text.from_markup(f"[bold]{escape(report.title)}[/bold]  [{color}]{report.verdict}[/]")
    names = [name for name in COLUMNS if width >= FULL_WIDTH or name not in WIDE_ONLY]
    table = table_of(names)
    parts: list[Table | Text | Padding] = [title, table]
    for row in report.rows:
        table.add_row(*(COLUMNS[name](row) for name in names))
        parts += [Text(f"{row.name}: {problem}", style="red") for problem in row.messages]
        if row.cause:
            cause = Text(f"likely cause: {row.cause}")
            parts.append(Padding(cause, (0, 0, 0, 4), expand=False))
    parts += [Text(f"note: {note}") for note in report.notes]
    if not report.ok:
        parts.append(Text(f"seed={report.seed} reproduces it"))
    return Group(*parts)


def summary_table(reports: Sequence[Report]) -> Table:
    """Return a table with a row per report, which shows its worst tensor."""
    figures = ("relative", "bound", "headroom", "verdict")
    table = table_of(("checked", "oracle", "worst tensor", "tensors", *figures))
    for report in reports:
        row = report.worst
        oracles = ", ".join(dict.fromkeys(row.oracle for row in report.rows))
        cells = (COLUMNS[name](row) for name in figures)
        table.add_row(
            escape(report.title), oracles, escape(row.name), str(len(report.rows)), *cells
        )
    return table


def table_of(names: Sequence[str]) -> Table:
    """Return an empty table with these columns; narrow columns fold, nothing is cut."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in names:
        is_figure = name not in (*NAMES, "verdict")
        justify = "right" if is_figure else "left"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=name not in NAMES)
    return table


def wide(console: Console) -> Console:
    """Return the console, or one without a line limit if the output is not a terminal."""
    if console.is_terminal or "COLUMNS" in os.environ:
        return console
    return Console(width=WIDTH, highlight=False)


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape such as 4×6."""
    return "×".join(map(str, shape)) or "scalar"


def checked(row: Row) -> str:
    """Return how many elements were checked, of how many; or how many directions."""
    if not row.by_element:
        return f"{row.checked} dir."
    return f"{row.checked} of {row.checked + row.skipped}" if row.skipped else str(row.checked)


def place(row: Row) -> str:
    """Return where the largest error is."""
    if math.isnan(row.analytic):
        return "-"
    return str(list(row.index)) if row.by_element else f"dir. {row.index[0]}"


def relative(row: Row) -> str:
    """Return the relative error, or the Taylor slope."""
    is_slope = row.oracle == "Taylor slope" and not math.isnan(row.relative)
    return f"h^{row.relative:.2f}" if is_slope else error(row.relative)


def value(number: float) -> str:
    """Return a derivative in six digits."""
    return "-" if math.isnan(number) else f"{number:.6g}"


def error(number: float) -> str:
    """Return an error in two digits."""
    return "-" if not math.isfinite(number) else "0" if number == 0 else f"{number:.1e}"


def headroom(row: Row) -> str:
    """Return the headroom of a row that is right."""
    if not row.ok or not math.isfinite(row.headroom):
        return "-"
    return f"{row.headroom:.2g}×" if row.headroom < 100 else f"{row.headroom:.0f}×"


# The text of each column of a row, with markup.
COLUMNS: dict[str, Callable[[Row], str]] = {
    "tensor": lambda row: escape(row.name),
    "shape": lambda row: shape_text(row.shape),
    "checked": checked,
    "worst at": place,
    "analytic": lambda row: value(row.analytic),
    "numeric": lambda row: value(row.numeric),
    "absolute": lambda row: error(row.absolute),
    "relative": relative,
    "bound": lambda row: error(row.bound),
    "headroom": headroom,
    "verdict": lambda row: f"[{'green' if row.ok else 'bold red'}]{row.verdict}[/]",
}
