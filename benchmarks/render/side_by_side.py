"""Two results side by side: the kernels of training, their peers, and the limits of the machines.

Compared are the rows that both results have, at the same sizes; the others are listed.
"""

import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape

from benchmarks.harness.analysis import Interval, bandwidth, rates_of
from benchmarks.harness.figures import USUAL, read
from benchmarks.render import cells, page
from benchmarks.render.cells import GIGA, MINE, milliseconds, number
from benchmarks.render.report import NAME, table_that_fits

CASE = ("operation", "direction", "shape")
# The names of the two results.
LETTERS = ("A", "B")
MEASURES = ("ms", "ratio", "speed", "limit")
LEAST_NAME = 12  # characters to which names are wrapped where it is narrow
LEGEND = (
    "ratio: the time divided by that of our trained kernel on as many threads, in the same run;"
    " ?: no verdict. limit: the time that the limits of the machine allow, divided by the time."
)

Result = dict[str, Any]
Row = dict[str, Any]
CaseKey = tuple[Any, ...]  # operation, direction, shape and sizes


class Figures(NamedTuple):
    """A row of one result, in words. spread: the interval of the ratio."""

    ms: str
    ratio: str
    speed: str
    share: str
    spread: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The texts for each of MEASURES."""
        return (self.ms, self.ratio, self.speed, self.share)


def load(path: Path) -> Result:
    """Return a result, or raise ValueError if a file has none that can be shown."""
    found = read(path)
    try:
        view([found, found], ["a", "b"])
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{path} is no result of python -m benchmarks kernels") from error
    return found


def view(results: Sequence[Result], names: Sequence[str]) -> dict[str, Any]:
    """Return what is shown of two results, in words. names: what they are called."""
    records = [{key_of(record): record for record in found["cases"]} for found in results]
    common = [[each[key] for each in records] for key in records[0] if key in records[1]]
    return {
        "names": names,
        "facts": both([page.facts(found) for found in results]),
        "limits": both([dict(limits_of(found)) for found in results]),
        "means": [*means(common)],
        "cases": [case_view(*each) for each in common],
        "only": [only(*records), only(*records[::-1])],
    }


def both(sides: Sequence[dict[str, str]]) -> dict[str, list[str]]:
    """Return the values of each name on both sides."""
    return {name: [side.get(name, "") for side in sides] for name in sides[0] | sides[1]}


def key_of(record: Row) -> CaseKey:
    """Return what identifies a case."""
    return (*(record[part] for part in CASE), *sorted(record["sizes"].items()))


def rows_of(record: Row) -> dict[str, Row]:
    """Return the trained kernels of a case and all that were compared with them, by name."""
    rows = [USUAL | row for row in record["rows"]]
    ours = {cells.label(row): row for row in rows if row["trained"]}
    others = [row for row in rows if cells.part(row) != cells.LADDER]
    return ours | {f"{cells.label(row)} ({row['by']})": row for row in others}


def limits_of(found: Result) -> Iterator[tuple[str, str]]:
    """Yield the name of each limit of a machine, and its median with the interval."""
    for limit in found["limits"]:
        median, low, high = (number(rate / GIGA) for rate in limit["rate"][:3])
        name = f"{cells.limit_name(limit)}, {cells.several(limit['threads'])}"
        yield name, f"{median} ({low}–{high})"


def case_view(first: Row, second: Row) -> dict[str, Any]:
    """Return what is shown of a case in two results."""
    work, unit = ("flops", "GFLOP/s") if is_computing(first) else ("bytes", "GB/s")
    ours, theirs = rows_of(first), rows_of(second)
    return {
        "title": " ".join(first[part] for part in CASE),
        "operation": first["operation"],
        "about": f"{cells.sizes(first)}; {cells.costs(first)}",
        "unit": unit,
        "rows": [
            (name, [figures(row, first[work]) for row in (ours[name], theirs[name])])
            for name in ours
            if name in theirs
        ],
    }


def is_computing(record: Row) -> bool:
    """Return whether computing takes longer than moving the bytes, at the limits of one thread."""
    found = rates_of(record)
    if not found:
        return True
    rates = found[min(found)]
    return record["flops"] * bandwidth(rates) >= record["bytes"] * rates["peak"]


def figures(row: Row, work: float) -> Figures:
    """Return what is shown of a row. work: the FLOPs or bytes of a step."""
    if not cells.is_timed(row):
        return Figures(cells.why_not(row), "", "", "", "")
    seconds, ratio = row["seconds"][0], ratio_of(row)
    unsure = " ?" if row.get("unresolved") else ""
    return Figures(
        ms=milliseconds(seconds),
        ratio=number(ratio.median) + unsure if ratio else "",
        spread=f"{number(ratio.low)}–{number(ratio.high)}" if ratio else "",
        speed=number(work / seconds / GIGA),
        share=cells.share(row) if "fraction" in row else "",
    )


def ratio_of(row: Row) -> Interval | None:
    """Return the time of a row divided by that of our trained kernel, unless it is that."""
    if row["by"] == MINE and row.get("gain"):
        median, low, high, coverage = row["gain"]
        return Interval(1 / median, 1 / high, 1 / low, coverage)
    return Interval(*row["by_ours"]) if row.get("by_ours") else None


def means(common: Sequence[Sequence[Row]]) -> Iterator[tuple[str, list[str], int]]:
    """Yield the geometric means of the ratios of a row in both results, and of how many cases.

    Ratios without a verdict do not count.
    """
    ratios: dict[str, list[list[float]]] = {}
    for records in common:
        sides = [rows_of(record) for record in records]
        for name in sides[0]:
            rows = [rows.get(name, {}) for rows in sides]
            if all(row.get("by_ours") and not row.get("unresolved") for row in rows):
                ratios.setdefault(name, []).append([row["by_ours"][0] for row in rows])
    for name, each in ratios.items():
        columns = zip(*each, strict=True)
        yield name, [number(statistics.geometric_mean(column)) for column in columns], len(each)


def only(here: Mapping[CaseKey, Row], there: Mapping[CaseKey, Row]) -> dict[str, str]:
    """Return the rows that the first result has and the second has not, and in which cases."""
    cases: dict[str, list[str]] = {}
    for key in here:
        known = rows_of(there[key]) if key in there else {}
        for name in rows_of(here[key]):
            if name not in known:
                cases.setdefault(name, []).append(" ".join(key[: len(CASE)]))
    return {name: ", ".join(each) for name, each in cases.items()}


def show(shown: dict[str, Any], console: Console) -> None:
    """Show tables of two results, called A and B."""
    for letter, name, cpu in zip(LETTERS, shown["names"], shown["facts"]["CPU"], strict=True):
        console.print(escape(f"{letter}: {name}, {cpu}"), style="bold")
    for letter, note in zip(LETTERS, shown["facts"].get("note", ()), strict=False):
        console.print(escape(f"{letter} was {note}." if note else ""), end="\n" * bool(note))
    console.print(LEGEND, style="dim")
    show_table(
        "limits", [LETTERS], [(name, [each]) for name, each in shown["limits"].items()], console
    )
    rows = [(f"{name}, {count} cases", [each]) for name, each, count in shown["means"]]
    if rows:
        show_table("geometric mean of the ratios", [LETTERS], rows, console)
    for case in shown["cases"]:
        measures = [case["unit"] if name == "speed" else name for name in MEASURES]
        heads = [[f"{name}\n{letter}" for letter in LETTERS] for name in measures]
        rows = [
            (name, zip(*(each.cells for each in sides), strict=True))
            for name, sides in case["rows"]
        ]
        show_table(f"{case['title']}: {case['about']}", heads, rows, console)
    for letter, missing in zip(LETTERS, shown["only"], strict=True):
        for name, cases in missing.items():
            console.print(escape(f"Only {letter} has {name}: {cases}."))


def show_table(
    title: str, heads: Sequence[Sequence[str]], rows: Iterable[tuple[str, Iterable[Sequence[str]]]],
    console: Console,
) -> None:  # fmt: skip
    """Show pairs of columns with these heads; the last pairs are left out where it is narrow."""
    named = [
        {NAME: escape(name)}
        | dict(zip(itertools.chain(*heads), itertools.chain(*pairs), strict=True))
        for name, pairs in rows
    ]
    heads = list(heads)
    while True:
        columns = [NAME, *itertools.chain(*heads)]
        table, _ = table_that_fits(named, columns, (), console.width, LEAST_NAME)
        if len(heads) == 1 or (table.width or 0) <= console.width:
            break
        heads.pop()
    for each in named:
        table.add_row(*(each[column] for column in columns))
    console.print(f"\n{escape(title)}", style="bold")
    console.print(table, crop=False)


def write(shown: dict[str, Any], path: Path) -> None:
    """Write the page of two results to a new file."""
    with path.open("x", encoding="utf-8") as file:
        file.write(page.template("side_by_side.html.jinja").render(shown, measures=MEASURES))
