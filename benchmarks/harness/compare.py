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

Measured on two cores shared with others, without the second measurement: 12 pairs of runs of the
same kernels gave no false alarm; of rows made twice as slow, 27 of 27 were found, of rows made
1.3 times as slow 22 of 27. With both cores busy, 35 of 272 pairs had a false alarm. Comparing the
fastest sample of each round instead of its median missed twice as slow in two runs out of three,
because a core is quiet for a moment now and then.
"""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import machine
from benchmarks.harness.analysis import FASTER, LEAST_COVERAGE, SAME, SLOWER
from benchmarks.harness.figures import USUAL
from benchmarks.harness.report import SIGNS, interval, label, milliseconds
from benchmarks.harness.rounds import OURS
from benchmarks.harness.statistics import Interval
from tinygpt_np.machine import processor_name

CASE = ("operation", "direction", "shape")
MARGIN, DEVIATIONS = 1.1, 2
# Standard deviation of a normal distribution divided by its median absolute deviation.
DEVIATION = 1.4826
# Fewer rows do not tell the spread.
ENOUGH = 8
NAMED = 3  # how many rows that are in one result only are named

Key = tuple[Any, ...]


@dataclass
class Figures:
    """The figures of a case: seconds of rungs with our kernels; and others that tell its pace."""

    name: str
    kernels: dict[Key, Interval] = field(default_factory=dict[Key, Interval])
    others: dict[Key, float] = field(default_factory=dict[Key, float])


@dataclass(frozen=True)
class Difference:
    """Seconds of a row before and now, and their ratio corrected for the machine's slowdown."""

    name: str
    old: float | None
    new: float | None
    ratio: Interval | None = None
    verdict: str = SAME


def load(path: Path) -> dict[str, Any]:
    """Return a result, or raise ValueError if it cannot be compared with one of this machine."""
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"{path} is not JSON") from None
    try:
        known = found["benchmark"] == "kernels" and bool(differences(found, found))
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
    slower = {each.name for each in differences(old, new) if each.verdict == SLOWER}
    found: list[tuple[str, str, str]] = []
    for record in new["cases"]:
        operation, direction, shape = (record[name] for name in CASE)
        if any(name.startswith(f"{operation} {direction} {shape} ") for name in slower):
            found.append((operation, direction, shape))
    return found


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[Difference]:
    """Return the difference of each row in the order of the new result, then rows of one only.

    A row of a case that was measured again is slower only if it was slower both times.
    """
    before, now, again = read(old["cases"]), read(new["cases"]), read(new.get("again", []))
    margin = margin_of(before, now)
    return [
        *(
            judge(before[key], case, again.get(key), row, margin)
            for key, case in now.items()
            if key in before
            for row in case.kernels
            if row in before[key].kernels
        ),
        *(Difference(name, None, seconds) for name, seconds in only(now, before)),
        *(Difference(name, seconds, None) for name, seconds in only(before, now)),
    ]


def read(records: Sequence[dict[str, Any]]) -> dict[Key, Figures]:
    """Return the figures by case and sizes."""
    found: dict[Key, Figures] = {}
    for record in records:
        name = " ".join(record[part] for part in CASE)
        case = found[name, *sorted(record["sizes"].items())] = Figures(name)
        for row in (USUAL | each for each in record["rows"] if "seconds" in each):
            key = label(row), row["by"], row["threads"]
            estimate = Interval(*row["seconds"])
            if row["by"] == OURS and row.get("compile_seconds") is not None:
                case.kernels[key] = estimate
            elif row["threads"] == 1:
                case.others[key] = estimate.median
        for limit in record["limits"]:
            if limit["threads"] == 1 and limit["pace"]:
                case.others[limit["name"],] = limit["pace"]
    return found


def slowdown(old: Figures, new: Figures) -> float:
    """Return how many times as long the machine takes for what is not our kernel."""
    both = old.others.keys() & new.others.keys()
    return statistics.median([new.others[key] / old.others[key] for key in both] or [1.0])


def margin_of(before: dict[Key, Figures], now: dict[Key, Figures]) -> float:
    """Return the factor that a row must be slower by at the least."""
    shifts: list[float] = []
    for key in before.keys() & now.keys():
        old, new = before[key], now[key]
        lost = slowdown(old, new)
        shifts += [
            math.log(new.kernels[row].median / old.kernels[row].median / lost)
            for row in old.kernels.keys() & new.kernels.keys()
            if row[-1] == 1
        ]
        shifts += [
            math.log(new.others[each] / old.others[each] / lost)
            for each in old.others.keys() & new.others.keys()
        ]
    if len(shifts) < ENOUGH:
        return MARGIN
    middle = statistics.median(shifts)
    spread = DEVIATION * statistics.median(abs(shift - middle) for shift in shifts)
    return max(MARGIN, math.exp(DEVIATIONS * spread))


def judge(old: Figures, new: Figures, again: Figures | None, row: Key, margin: float) -> Difference:
    """Return the difference of a row with its verdict."""
    ratio = ratio_of(old, new, row)
    said = verdict(ratio, margin)
    if row[-1] > 1:
        said = SAME
    elif said == SLOWER and again is not None:
        said = verdict(ratio_of(old, again, row), margin) if row in again.kernels else SAME
    medians = old.kernels[row].median, new.kernels[row].median
    return Difference(f"{new.name} {row[0]}", *medians, ratio, said)


def ratio_of(old: Figures, new: Figures, row: Key) -> Interval:
    """Return the time of a row now divided by before, corrected for the machine's slowdown."""
    then, now, lost = old.kernels[row], new.kernels[row], slowdown(old, new)
    low, high = now.low / then.high / max(lost, 1.0), now.high / then.low / min(lost, 1.0)
    return Interval(now.median / then.median / lost, low, high, min(then.coverage, now.coverage))


def verdict(ratio: Interval, margin: float) -> str:
    """Return whether a row is slower, faster or the same."""
    if ratio.coverage < LEAST_COVERAGE:
        return SAME
    if ratio.low > margin:
        return SLOWER
    return FASTER if ratio.high < 1 / margin else SAME


def only(here: dict[Key, Figures], there: dict[Key, Figures]) -> list[tuple[str, float]]:
    """Return the rows with our kernels that are in one result and not in the other."""
    return [
        (f"{case.name} {row[0]}", estimate.median)
        for key, case in here.items()
        for row, estimate in case.kernels.items()
        if key not in there or row not in there[key].kernels
    ]


def show(found: Sequence[Difference], console: Console) -> bool:
    """Show what is slower and what is faster; return whether anything is slower."""
    both = [each for each in found if each.ratio is not None]
    slower, faster = (
        [each for each in both if each.verdict == verdict] for verdict in (SLOWER, FASTER)
    )
    console.print()
    if slower or faster:
        console.print(table_of([*slower, *faster]))
    console.print(f"{len(slower)} of {len(both)} rows are slower than before, {len(faster)} faster")
    if few := sum(each.ratio.coverage < LEAST_COVERAGE for each in both if each.ratio):
        console.print(f"{few} have too few rounds to tell")
    for when, names in (
        ("now", [each.name for each in found if each.old is None]),
        ("before", [each.name for each in found if each.new is None]),
    ):
        if names:
            more = ", …" if len(names) > NAMED else ""
            listed = escape(", ".join(names[:NAMED]))
            console.print(f"{len(names)} rows were measured only {when}: {listed}{more}")
    return bool(slower)


def table_of(resolved: Sequence[Difference]) -> Table:
    """Return the table of the rows that differ."""
    table = Table(title="compared with before", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("kernel")
    for name in ("ms before", "ms now", "now / before"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in resolved:
        assert each.old is not None
        assert each.new is not None
        assert each.ratio is not None
        table.add_row(
            f"{escape(each.name)} {SIGNS[each.verdict]}", milliseconds(each.old),
            milliseconds(each.new), interval(each.ratio),
        )  # fmt: skip
    return table
