"""Two results of the kernel benchmark: which kernels are slower now, and which are faster.

Machines are shared, and hundreds of rows are compared. Most kernels have not changed, so the rows
themselves tell the pace of the machine and its noise (Efron, "Large-scale simultaneous hypothesis
testing", 2004). The ratio of a row is its time now divided by that before, and by the slowdown of
the machine. A row is slower, and in the same way faster, if

- its ratio is above MARGIN and above DEVIATIONS times the spread of all rows on as many threads;
- the interval of its ratio, WIDER times as wide as those of both times, is above 1;
- it is slower a second time, measured again in new processes.

A row that is unresolved in its own run (see verdicts.py) is unresolved here.
"""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape

from benchmarks import machine
from benchmarks.harness.analysis import FASTER, SAME, SLOWER, Interval
from benchmarks.harness.figures import USUAL, read
from benchmarks.harness.verdicts import LEAST_COVERAGE, verdict
from benchmarks.render.cells import MINE, OURS, interval, label, milliseconds
from benchmarks.render.report import SIGNS, table_of
from tinygpt_np.machine import processor_name

CASE = ("operation", "direction", "shape")
# On a quiet machine, runs of the same code differ by up to 14 % in some row.
MARGIN, DEVIATIONS, WIDER = 1.2, 4, 2.5
# Standard deviation of a normal distribution divided by its median absolute deviation.
DEVIATION = 1.4826
# Fewer rows do not tell the spread.
ENOUGH = 8
NAMED = 3  # how many rows that are in one result only are named


@dataclass(frozen=True)
class Shape:
    """The sizes of a case, whatever they were called."""

    name: str = field(compare=False)
    sizes: tuple[tuple[str, int], ...]


class RowKey(NamedTuple):
    """A row of a result. case: operation, direction and shape."""

    case: tuple[str, str, Shape]
    threads: int
    label: str
    by: str

    @property
    def name(self) -> str:
        """The name of the row in tables."""
        by = "" if self.by == OURS else f" ({self.by})"
        return " ".join((*self.case_names, self.label)) + by

    @property
    def case_names(self) -> tuple[str, str, str]:
        """The names of the case."""
        operation, direction, shape = self.case
        return operation, direction, shape.name


@dataclass(frozen=True)
class Times:
    """Seconds of a row, also corrected for the pace of each round.

    fixed: whether no code of ours or of the user's is compiled for it. unresolved: why its times
    prove nothing.
    """

    seconds: Interval
    steady: Interval
    fixed: bool
    unresolved: str | None


@dataclass(frozen=True)
class Figures:
    """The rows of cases, and the seconds per unit of their limits, by case, threads and name."""

    rows: dict[RowKey, Times]
    limits: dict[tuple[Any, int, str], float]


@dataclass(frozen=True)
class Difference:
    """Times of a row before and now, and their ratio corrected for the machine's slowdown.

    unresolved: why there is no verdict.
    """

    row: RowKey
    old: Times | None
    new: Times | None
    ratio: Interval | None = None
    verdict: str = SAME
    unresolved: str | None = None


def load(path: Path) -> dict[str, Any]:
    """Return a result, or raise ValueError if it cannot be compared with one of this machine."""
    found: Any = read(path)
    try:
        known = bool(differences(found, found))
        there = f"{found['machine']['cpu']}, {found['machine']['vector_bits']}-bit vectors"
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError):
        known, there = False, ""
    if not known:
        raise ValueError(f"{path} is no result of python -m benchmarks kernels")
    here = f"{processor_name()}, {machine.vector_bits()}-bit vectors"
    if there != here:
        raise ValueError(f"{path} was measured on another machine ({there}) than this ({here})")
    return found


def suspects(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the cases with a row that seems to differ, which are to be measured again."""
    different = [each.row for each in differences(old, new) if each.verdict != SAME]
    return list(dict.fromkeys(row.case_names for row in different))


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[Difference]:
    """Return the difference of each row in the order of the new result, then rows of one only.

    Rows of peers only tell the pace of the machine.
    """
    before, now, again = (
        figures_of(records) for records in (old["cases"], new["cases"], new.get("again", []))
    )
    first, second = ratios_of(before, now), ratios_of(before, again)
    margins = margins_of(first)
    repeated = {row.case for row in again.rows}
    both, new_only, old_only = list[Difference](), list[Difference](), list[Difference]()
    for row in (row for row in now.rows | before.rows if row.by in (OURS, MINE)):  # no peers
        then, here = before.rows.get(row), now.rows.get(row)
        if then is None:
            new_only.append(Difference(row, None, here))
        elif here is None:
            old_only.append(Difference(row, then, None))
        else:
            reason = then.unresolved or here.unresolved
            said = SAME if reason else slowdown_word(first[row], margins[row.threads])
            if said != SAME and row.case in repeated:  # It must be the same both times.
                once_more = again.rows.get(row)
                resolved = once_more is not None and not once_more.unresolved
                repeat = slowdown_word(second[row], margins[row.threads]) if resolved else SAME
                said = said if repeat == said else SAME
            both.append(Difference(row, then, here, first[row], said, reason))
    return [*both, *new_only, *old_only]


def figures_of(records: Sequence[dict[str, Any]]) -> Figures:
    """Return the figures of cases; rows that are wrong or have failed are left out."""
    found = Figures({}, {})
    for record in records:
        shape = Shape(record["shape"], tuple(sorted(record["sizes"].items())))
        case = record["operation"], record["direction"], shape
        for row in (USUAL | each for each in record["rows"] if "seconds" in each):
            if not (row["wrong"] or row.get("failed")):
                seconds, steady = Interval(*row["seconds"]), Interval(*row["steady"])
                few = "too few rounds" if seconds.coverage < LEAST_COVERAGE else None
                known = row["by"] == OURS and row.get("compile_seconds") is None
                fixed = known or row["by"] not in (OURS, MINE)
                key = RowKey(case, row["threads"], label(row), row["by"])
                reason = row.get("unresolved") or few
                found.rows[key] = Times(seconds, steady, fixed, reason)
        for limit in (each for each in record["limits"] if each["rate"]):
            found.limits[case, limit["threads"], limit["name"]] = 1 / limit["rate"]
    return found


def ratios_of(before: Figures, now: Figures) -> dict[RowKey, Interval]:
    """Return the time of each row now divided by before, corrected for the machine's slowdown.

    The slowdown is that of the limits of the case, of its rows that no kernel of ours computes
    (Python, NumPy, peers), or of all its rows, on as many threads: the middle one.
    """
    limits = {
        key: now.limits[key] / before.limits[key] for key in now.limits if key in before.limits
    }
    ratios = {
        row: now.rows[row].steady.median / before.rows[row].steady.median
        for row in now.rows
        if row in before.rows
    }
    found: dict[RowKey, Interval] = {}
    for row in ratios:
        alike = [other for other in ratios if other[:2] == row[:2]]
        parts = (
            [lost for (case, threads, _), lost in limits.items() if (case, threads) == row[:2]],
            [ratios[other] for other in alike if now.rows[other].fixed],
            [ratios[other] for other in alike],
        )
        slowdown = statistics.median(statistics.median(part) for part in parts if part)
        found[row] = quotient(now.rows[row].steady, before.rows[row].steady, slowdown)
    return found


def quotient(now: Interval, before: Interval, slowdown: float) -> Interval:
    """Return a ratio of two medians, whose errors are independent, with an interval."""
    middle = now.median / before.median / slowdown
    below = math.hypot(math.log(now.median / now.low), math.log(before.high / before.median))
    above = math.hypot(math.log(now.high / now.median), math.log(before.median / before.low))
    low, high = middle * math.exp(-WIDER * below), middle * math.exp(WIDER * above)
    return Interval(middle, low, high, min(now.coverage, before.coverage))


def margins_of(ratios: Mapping[RowKey, Interval]) -> dict[int, float]:
    """Return, by threads, the factor that a row must be slower by, given all ratios."""
    shifts: dict[int, list[float]] = {}
    for row, ratio in ratios.items():
        shifts.setdefault(row.threads, []).append(math.log(ratio.median))
    found: dict[int, float] = {}
    for threads, values in shifts.items():
        middle = statistics.median(values)
        spread = DEVIATION * statistics.median(abs(value - middle) for value in values)
        enough = len(values) >= ENOUGH
        found[threads] = max(MARGIN, math.exp(DEVIATIONS * spread)) if enough else MARGIN
    return found


def slowdown_word(ratio: Interval, margin: float) -> str:
    """Return whether a row is slower, faster or the same."""
    return {FASTER: SLOWER, SLOWER: FASTER, SAME: SAME}[verdict(ratio, 1.0, margin)]


def show(found: Sequence[Difference], console: Console) -> bool:
    """Show what is slower and what is faster; return whether anything is slower."""
    both = [each for each in found if each.ratio is not None]
    slower = [each for each in both if each.verdict == SLOWER]
    faster = [each for each in both if each.verdict == FASTER]
    table = table_of("compared with before", "kernel", "ms before", "ms now", "now / before")
    for each in (*slower, *faster):
        times = [milliseconds(time.seconds.median) for time in (each.old, each.new) if time]
        name = f"{escape(each.row.name)} {SIGNS[each.verdict]}"
        table.add_row(name, *times, interval(each.ratio) if each.ratio else "")
    console.print()
    if slower or faster:
        console.print(table)
    console.print(f"{len(slower)} of {len(both)} rows are slower than before, {len(faster)} faster")
    for reason, count in Counter(each.unresolved for each in both if each.unresolved).items():
        console.print(f"{count} prove nothing: {escape(reason)}")
    for when, names in (
        ("now", [each.row.name for each in found if each.old is None]),
        ("before", [each.row.name for each in found if each.new is None]),
    ):
        if names:
            more = ", …" if len(names) > NAMED else ""
            listed = escape(", ".join(names[:NAMED]))
            console.print(f"{len(names)} rows were measured only {when}: {listed}{more}")
    return bool(slower)
