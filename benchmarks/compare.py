"""Two runs of the kernel benchmark: which kernels are slower now, and which faster.

What it takes to be called so is told in noise.py.
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
from benchmarks.climb import OURS
from benchmarks.kernels_table import SIGNS, milliseconds
from benchmarks.noise import Pair, Rounds, bound, shift, verdict
from benchmarks.standing import FASTER, SAME, SLOWER

NAMED = 3  # of rows that are in one run only

Rung = tuple[str, str, int]  # its name, by whom, threads


@dataclass
class Task:
    """A task as it was measured. free: the rungs that no kernel of ours is part of."""

    name: str
    kernel: str  # operation and direction
    rungs: dict[Rung, Rounds] = field(default_factory=dict[Rung, Rounds])
    limits: dict[tuple[str, int], Rounds] = field(default_factory=dict[tuple[str, int], Rounds])
    free: set[Rung] = field(default_factory=set[Rung])
    control: float = 0.0


@dataclass(frozen=True)
class Difference:
    """Of a row with a kernel of ours. old, new: seconds of the fastest sample, if there is one.

    beyond: what it takes, at the least, to be called slower or faster, as a factor.
    """

    name: str
    old: float | None
    new: float | None
    verdict: str = SAME
    beyond: float = 1.0


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
    here = f"{machine.cpu_name()}, vectors of {machine.vector_bits()} bits"
    if there != here:
        raise ValueError(f"{path} is of another machine ({there}) than this ({here})")
    return found


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[Difference]:
    """Of each row of two results, in the order of the new one; then what only the old one has."""
    before, now = read(old), read(new)
    pairs = [
        pair(before[key], task, rung)
        for key, task in now.items()
        if key in before
        for rung in task.rungs
        if rung in before[key].rungs
    ]
    widest = max((task.control for task in (*before.values(), *now.values())), default=0.0)
    bounds = {each.kind: bound(pairs, each.kind, widest) for each in pairs}
    return [
        *(judge(each, bounds[each.kind], pairs) for each in pairs if not each.free),
        *(Difference(name, None, seconds) for name, seconds in only(now, before)),
        *(Difference(name, seconds, None) for name, seconds in only(before, now)),
    ]


def read(found: dict[str, Any]) -> dict[Any, Task]:
    """What was measured, by task and sizes."""
    tasks: dict[Any, Task] = {}
    for record in found["tasks"]:
        kernel = f"{record['operation']} {record['direction']}"
        name = f"{kernel} {record['shape']}"
        task = tasks[name, tuple(sorted(record["sizes"].items()))] = Task(name, kernel)
        for row in record["rows"]:
            rung = row["rung"], row["by"], row["threads"]
            if fastest := rounds(row):
                task.rungs[rung] = fastest
                if row["by"] != OURS or row.get("compile_seconds") is None:
                    task.free.add(rung)
        for limit in record["limits"]:
            paces = [seconds / limit["amount"] for seconds in rounds(limit)]
            if paces:
                task.limits[limit["name"], limit["threads"]] = paces
        for control in record["controls"]:
            if fastest := rounds(control):
                twin = control["rung"], control["by"], control["threads"]
                task.control = max(task.control, abs(shift(task.rungs[twin], fastest)))
    return tasks


def rounds(row: dict[str, Any]) -> Rounds:
    return sorted(min(turn) for turn in row.get("seconds", ()) if turn)


def pair(old: Task, new: Task, rung: Rung) -> Pair:
    shifts = [
        shift(old.limits[limit], new.limits[limit])
        for limit in new.limits
        if limit in old.limits and limit[1] == rung[2]
    ]
    beside = [
        shift(old.rungs[each], new.rungs[each])
        for each in new.free & old.free
        if each[:2] != rung[:2]
    ]
    if beside:
        shifts.append(statistics.median(beside))
    return Pair(
        label(new, rung), (new.kernel, rung[0]), rung in new.free, rung[2],
        old.rungs[rung], new.rungs[rung], shifts,
    )  # fmt: skip


def label(task: Task, rung: Rung) -> str:
    several = f" ×{rung[2]}" if rung[2] > 1 else ""
    return f"{task.name} {rung[0]}{several}"


def only(here: dict[Any, Task], there: dict[Any, Task]) -> list[tuple[str, float]]:
    """The rows with our kernels that are in one result and not in the other."""
    return [
        (label(task, rung), fastest[0])
        for key, task in here.items()
        for rung, fastest in task.rungs.items()
        if rung not in task.free and (key not in there or rung not in there[key].rungs)
    ]


def judge(each: Pair, least: float, pairs: Sequence[Pair]) -> Difference:
    return Difference(each.name, each.old[0], each.new[0], *verdict(each, least, pairs))


def show(found: Sequence[Difference], console: Console) -> bool:
    """Says what is slower and what is faster; returns whether anything is slower."""
    both = [each for each in found if each.old is not None and each.new is not None]
    slower, faster = (
        [each for each in both if each.verdict == verdict] for verdict in (SLOWER, FASTER)
    )
    console.print()
    if slower or faster:
        console.print(table_of([*slower, *faster]))
    told = [each.beyond for each in both if math.isfinite(each.beyond)]
    takes = f", which takes at the least ×{min(told):.2f} – ×{max(told):.2f}" if told else ""
    console.print(
        f"of {len(both)} rows {len(slower)} are slower than before and {len(faster)} faster{takes}"
    )
    if len(told) < len(both):
        console.print(f"{len(both) - len(told)} have too few rounds to tell")
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
    for name in ("ms before", "ms now", "times", "noise"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in resolved:
        old, new = each.old or math.nan, each.new or math.nan
        table.add_row(
            f"{escape(each.name)} {SIGNS[each.verdict]}", milliseconds(old), milliseconds(new),
            f"×{new / old:.2f}", f"×{each.beyond:.2f}",
        )  # fmt: skip
    return table
