"""Two results of the kernel benchmark: which kernels are slower now, and which are faster.

Machines are shared, and hundreds of rows are compared. For each serial row of ours there is the
interval of its median over the rounds, before and now. The row is slower if these are disjoint
and differ by more than

- what the machine lost meanwhile: the median slowdown of its limits and of the rungs of the same
  case without a kernel of ours (Python, NumPy), which took turns with it;
- MARGIN, and DEVIATIONS times the spread of all rows of the two results (by the median absolute
  deviation), since most kernels have not changed (Efron, "Large-scale simultaneous hypothesis
  testing", 2004).

It must also be slower a second time, measured again in a new process. Rows on several threads get
no verdict, because the placement of threads varies more than kernels do.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape

from benchmarks import machine
from benchmarks.harness.analysis import FASTER, LEAST_COVERAGE, SAME, SLOWER, Interval
from benchmarks.harness.figures import USUAL, read
from benchmarks.harness.rounds import OURS
from benchmarks.render.cells import interval, label, milliseconds
from benchmarks.render.report import SIGNS, table_of
from tinygpt_np.machine import processor_name

CASE = ("operation", "direction", "shape")
MARGIN, DEVIATIONS = 1.1, 2
# Standard deviation of a normal distribution divided by its median absolute deviation.
DEVIATION = 1.4826
# Fewer rows do not tell the spread.
ENOUGH = 8
NAMED = 3  # how many rows that are in one result only are named


class RowKey(NamedTuple):
    """A row of a result, or a limit. kernel: whether it is ours; others tell the machine's pace."""

    case: tuple[Any, ...]
    label: str
    by: str
    threads: int
    kernel: bool

    @property
    def name(self) -> str:
        """The name of the row in tables."""
        return " ".join((*self.case[: len(CASE)], self.label))


Rows = dict[RowKey, Interval]


@dataclass(frozen=True)
class Difference:
    """Seconds of a row before and now, and their ratio corrected for the machine's slowdown."""

    row: RowKey
    old: Interval | None
    new: Interval | None
    ratio: Interval | None = None
    verdict: str = SAME


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
    """Return the cases with a row that seems slower, which are to be measured again."""
    slower = [each.row for each in differences(old, new) if each.verdict == SLOWER]
    return list(dict.fromkeys(row.case[: len(CASE)] for row in slower))


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[Difference]:
    """Return the difference of each row in the order of the new result, then rows of one only."""
    before, now, again = (
        rows_of(each) for each in (old["cases"], new["cases"], new.get("again", []))
    )
    ratios, second = ratios_of(before, now), ratios_of(before, again)
    margin = margin_of([math.log(each.median) for row, each in ratios.items() if row.threads == 1])
    repeated = {row.case for row in again}
    both, new_only, old_only = list[Difference](), list[Difference](), list[Difference]()
    for row in (row for row in now | before if row.kernel):
        if row not in before:
            new_only.append(Difference(row, None, now[row]))
        elif row not in now:
            old_only.append(Difference(row, before[row], None))
        else:
            said = verdict(ratios[row], margin) if row.threads == 1 else SAME
            if said == SLOWER and row.case in repeated:  # It must be slower both times.
                said = verdict(second[row], margin) if row in second else SAME
            both.append(Difference(row, before[row], now[row], ratios[row], said))
    return [*both, *new_only, *old_only]


def rows_of(records: Sequence[dict[str, Any]]) -> Rows:
    """Return the seconds of the rows of cases, and the pace of their limits."""
    found: Rows = {}
    for record in records:
        case = (*(record[part] for part in CASE), *sorted(record["sizes"].items()))
        for row in (USUAL | each for each in record["rows"] if "seconds" in each):
            kernel = row["by"] == OURS and row.get("compile_seconds") is not None
            if kernel or row["threads"] == 1:
                key = RowKey(case, label(row), row["by"], row["threads"], kernel)
                found[key] = Interval(*row["seconds"])
        for limit in record["limits"]:
            if limit["threads"] == 1 and limit["pace"]:
                key = RowKey(case, limit["name"], "limit", 1, False)
                found[key] = Interval(limit["pace"], limit["pace"], limit["pace"], 1.0)
    return found


def ratios_of(old: Rows, new: Rows) -> Rows:
    """Return the time of each row now divided by before, corrected for the machine's slowdown."""
    both = [row for row in new if row in old]
    lost: dict[tuple[Any, ...], list[float]] = {row.case: [] for row in both}
    for row in both:
        if not row.kernel:
            lost[row.case].append(new[row].median / old[row].median)
    found: Rows = {}
    for row in both:
        then, now = old[row], new[row]
        slowdown = statistics.median(lost[row.case] or [1.0])
        found[row] = Interval(
            now.median / then.median / slowdown,
            now.low / then.high / max(slowdown, 1.0),
            now.high / then.low / min(slowdown, 1.0),
            min(then.coverage, now.coverage),
        )
    return found


def margin_of(shifts: Sequence[float]) -> float:
    """Return the factor that a row must be slower by, from the logarithms of all ratios."""
    if len(shifts) < ENOUGH:
        return MARGIN
    middle = statistics.median(shifts)
    spread = DEVIATION * statistics.median(abs(shift - middle) for shift in shifts)
    return max(MARGIN, math.exp(DEVIATIONS * spread))


def verdict(ratio: Interval, margin: float) -> str:
    """Return whether a row is slower, faster or the same."""
    if ratio.coverage < LEAST_COVERAGE:
        return SAME
    if ratio.low > margin:
        return SLOWER
    return FASTER if ratio.high < 1 / margin else SAME


def show(found: Sequence[Difference], console: Console) -> bool:
    """Show what is slower and what is faster; return whether anything is slower."""
    both = [each for each in found if each.ratio is not None]
    slower = [each for each in both if each.verdict == SLOWER]
    faster = [each for each in both if each.verdict == FASTER]
    table = table_of("compared with before", "kernel", "ms before", "ms now", "now / before")
    for each in (*slower, *faster):
        times = [milliseconds(seconds.median) for seconds in (each.old, each.new) if seconds]
        name = f"{escape(each.row.name)} {SIGNS[each.verdict]}"
        table.add_row(name, *times, interval(each.ratio) if each.ratio else "")
    console.print()
    if slower or faster:
        console.print(table)
    console.print(f"{len(slower)} of {len(both)} rows are slower than before, {len(faster)} faster")
    if few := sum(each.ratio.coverage < LEAST_COVERAGE for each in both if each.ratio):
        console.print(f"{few} have too few rounds to tell")
    for when, names in (
        ("now", [each.row.name for each in found if each.old is None]),
        ("before", [each.row.name for each in found if each.new is None]),
    ):
        if names:
            more = ", …" if len(names) > NAMED else ""
            listed = escape(", ".join(names[:NAMED]))
            console.print(f"{len(names)} rows were measured only {when}: {listed}{more}")
    return bool(slower)
