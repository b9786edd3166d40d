"""Two runs of the kernel benchmark: which kernels are slower now, and which faster.

Machines are shared, and hundreds of rows are compared. Of each row of ours on one thread stands the
interval of its median over the rounds, then and now. It is slower if the two lie apart, by more
than

- what the machine lost meanwhile: in the median, how much slower its limits became, and the rungs
  of the same task that no kernel of ours is part of (Python, NumPy); these took turns with it;
- MARGIN, and what rows differ by in these two runs anyway: DEVIATIONS times the spread of them all
  (by the median absolute deviation), for most have not changed (Efron, "Large-scale simultaneous
  hypothesis testing", 2004).

And it must be so again: what seems slower is measured once more, in a process of its own. Rows with
several threads have no verdict: how threads are placed differs more than kernels do.

Tried on two cores shared with others, before anything was measured again: of 12 pairs of runs of
the same kernels none had a false alarm; of rows made to take twice as long 27 of 27 were found, of
those made to take 1.3 times as long 22 of 27. While others were at work on both cores 35 of 272
pairs had an alarm. Held by the fastest sample of each round instead of its median, twice as long
was missed in two runs of three: now and then a core is quiet for a moment.
"""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import machine, summary
from benchmarks.climb import OURS, TASK
from benchmarks.figures import USUAL
from benchmarks.kernels_table import SIGNS, gain, milliseconds, with_threads
from benchmarks.standing import FASTER, LEAST_COVERAGE, SAME, SLOWER
from tinygpt_np.machine import processor_name

MARGIN, DEVIATIONS = 1.1, 2
# Of a normal distribution, the standard deviation by the median absolute deviation.
DEVIATION = 1.4826
# Fewer rows tell no spread.
ENOUGH = 8
NAMED = 3  # of rows that are in one run only

Key = tuple[Any, ...]


@dataclass
class Task:
    """A task as it was measured. ours: rungs with kernels of ours; beside: the other rungs and the
    limits, by what they are.
    """

    name: str
    ours: dict[Key, summary.Estimate] = field(default_factory=dict[Key, summary.Estimate])
    beside: dict[Key, float] = field(default_factory=dict[Key, float])


@dataclass(frozen=True)
class Difference:
    """Of a row: seconds before and now, and now by before with its interval, the machine's loss
    taken out.
    """

    name: str
    old: float | None
    new: float | None
    times: dict[str, float] | None = None
    verdict: str = SAME


def load(path: Path) -> dict[str, Any]:
    """A result of before. Raises ValueError if what is measured here cannot be compared with it."""
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"{path} is not JSON") from None
    try:
        known = found["benchmark"] == "kernels" and bool(differences(found, found))
        there = f"{found['machine']['cpu']}, vectors of {found['machine']['vector_bits']} bits"
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError):
        known, there = False, ""
    if not known:
        raise ValueError(f"{path} holds no measurements of python -m benchmarks kernels")
    here = f"{processor_name()}, vectors of {machine.vector_bits()} bits"
    if there != here:
        raise ValueError(f"{path} is of another machine ({there}) than this ({here})")
    return found


def suspects(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The tasks with a row that seems slower, to be measured again."""
    slower = {each.name for each in differences(old, new) if each.verdict == SLOWER}
    found: list[tuple[str, str, str]] = []
    for record in new["tasks"]:
        operation, direction, shape = (record[name] for name in TASK)
        if any(name.startswith(f"{operation} {direction} {shape} ") for name in slower):
            found.append((operation, direction, shape))
    return found


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[Difference]:
    """Return what differs between the figures of two results, row by row in the new one's order.

    Rows that only the old one has come last.

    A task that was measured again, under "again" in the new one, is slower only where it was again.
    """
    before, now, again = read(old["tasks"]), read(new["tasks"]), read(new.get("again", []))
    margin = margin_of(before, now)
    return [
        *(
            judge(before[key], task, again.get(key), rung, margin)
            for key, task in now.items()
            if key in before
            for rung in task.ours
            if rung in before[key].ours
        ),
        *(Difference(name, None, seconds) for name, seconds in only(now, before)),
        *(Difference(name, seconds, None) for name, seconds in only(before, now)),
    ]


def read(records: Sequence[dict[str, Any]]) -> dict[Key, Task]:
    """What was measured, by task and sizes."""
    tasks: dict[Key, Task] = {}
    for record in records:
        name = " ".join(record[part] for part in TASK)
        task = tasks[name, *sorted(record["sizes"].items())] = Task(name)
        for row in record["rows"]:
            if "seconds" not in row:
                continue
            row = USUAL | row
            key = with_threads(row), row["by"], row["threads"]
            estimate = summary.Estimate(*row["seconds"])
            if row["by"] == OURS and "compile_seconds" in row:
                task.ours[key] = estimate
            elif row["threads"] == 1:
                task.beside[key] = estimate.median
        for limit in record["limits"]:
            if limit["threads"] == 1 and limit["pace"]:
                task.beside[limit["name"],] = limit["pace"]
    return tasks


def loss(old: Task, new: Task) -> float:
    """How many times as long the machine takes for what is none of our kernels."""
    both = old.beside.keys() & new.beside.keys()
    return statistics.median([new.beside[key] / old.beside[key] for key in both] or [1.0])


def margin_of(before: dict[Key, Task], now: dict[Key, Task]) -> float:
    """What a row must be slower by, at the least."""
    shifts: list[float] = []
    for key in before.keys() & now.keys():
        old, new = before[key], now[key]
        lost = loss(old, new)
        shifts += [
            math.log(new.ours[rung].median / old.ours[rung].median / lost)
            for rung in old.ours.keys() & new.ours.keys()
            if rung[-1] == 1
        ]
        shifts += [
            math.log(new.beside[each] / old.beside[each] / lost)
            for each in old.beside.keys() & new.beside.keys()
        ]
    if len(shifts) < ENOUGH:
        return MARGIN
    middle = statistics.median(shifts)
    spread = DEVIATION * statistics.median(abs(shift - middle) for shift in shifts)
    return max(MARGIN, math.exp(DEVIATIONS * spread))


def judge(old: Task, new: Task, again: Task | None, rung: Key, margin: float) -> Difference:
    found = times(old, new, rung)
    said = verdict(found, margin)
    if rung[-1] > 1:
        said = SAME
    elif said == SLOWER and again is not None:
        said = verdict(times(old, again, rung), margin) if rung in again.ours else SAME
    medians = old.ours[rung].median, new.ours[rung].median
    return Difference(f"{new.name} {rung[0]}", *medians, asdict(found), said)


def times(old: Task, new: Task, rung: Key) -> summary.Estimate:
    """How many times as long a row takes now; what the machine lost, or gained, is taken out."""
    then, now, lost = old.ours[rung], new.ours[rung], loss(old, new)
    low, high = now.low / then.high / max(lost, 1.0), now.high / then.low / min(lost, 1.0)
    return summary.Estimate(
        now.median / then.median / lost, low, high, min(then.coverage, now.coverage)
    )


def verdict(found: summary.Estimate, margin: float) -> str:
    if found.coverage < LEAST_COVERAGE:
        return SAME
    if found.low > margin:
        return SLOWER
    return FASTER if found.high < 1 / margin else SAME


def only(here: dict[Key, Task], there: dict[Key, Task]) -> list[tuple[str, float]]:
    """The rows with our kernels that are in one result and not in the other."""
    return [
        (f"{task.name} {rung[0]}", estimate.median)
        for key, task in here.items()
        for rung, estimate in task.ours.items()
        if key not in there or rung not in there[key].ours
    ]


def show(found: Sequence[Difference], console: Console) -> bool:
    """Says what is slower and what is faster; returns whether anything is slower."""
    both = [each for each in found if each.times is not None]
    slower, faster = (
        [each for each in both if each.verdict == verdict] for verdict in (SLOWER, FASTER)
    )
    console.print()
    if slower or faster:
        console.print(table_of([*slower, *faster]))
    console.print(
        f"of {len(both)} rows {len(slower)} are slower than before and {len(faster)} faster"
    )
    if few := sum(each.times["coverage"] < LEAST_COVERAGE for each in both if each.times):
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
    table = Table(title="compared with before", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("kernel")
    for name in ("ms before", "ms now", "times as long"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in resolved:
        assert each.old is not None
        assert each.new is not None
        assert each.times is not None
        table.add_row(
            f"{escape(each.name)} {SIGNS[each.verdict]}", milliseconds(each.old),
            milliseconds(each.new), gain(each.times),
        )  # fmt: skip
    return table
