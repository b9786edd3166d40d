"""Results of the kernel benchmark, as quiet as can be, and what is slower in them."""

import copy
import io
from collections.abc import Callable
from typing import Any

from rich.console import Console

from benchmarks import compare, machine
from benchmarks.compare import Difference
from benchmarks.standing import SAME
from tinygpt_np.machine import processor_name

SIZES = {"cpu": 8, "lecture": 32}
Chosen = Callable[[dict[str, Any], dict[str, Any]], bool]


def row(name: str, seconds: float, threads: int = 1, by: str = "ours") -> dict[str, Any]:
    compiled = by == "ours" and name not in ("Python", "NumPy")
    paid = {"compile_seconds": 0.0} if compiled else {}
    spread = [1.008, 1.002, 1.014, 0.96]
    estimate = [part * seconds for part in spread[:3]] + spread[3:]
    return {"rung": name, "by": by, "threads": threads, "seconds": estimate, **paid}


def limit(name: str, threads: int) -> dict[str, Any]:
    return {"name": name, "threads": threads, "rate": 1e12, "pace": 1e-12}


def task(operation: str, direction: str, shape: str) -> dict[str, Any]:
    return {
        "operation": operation, "direction": direction, "shape": shape,
        "sizes": {"N": SIZES[shape]},
        "rows": [
            row("Python", 1e-2), row("NumPy", 1e-3), row("naive", 5e-4), row("vectors", 2e-4),
            row("parallel", 1e-3, 2), row("PyTorch", 1e-4, 1, "torch"),
        ],
        "limits": [limit(name, threads) for threads in (1, 2) for name in ("peak", "triad")],
    }  # fmt: skip


def result() -> dict[str, Any]:
    """As the kernel benchmark writes it, on this machine, as quiet as can be."""
    here = {"cpu": processor_name(), "vector_bits": machine.vector_bits()}
    tasks = [
        task(operation, direction, shape)
        for operation in ("softmax", "gelu")
        for direction in ("forward", "backward")
        for shape in SIZES
    ]
    about = {"benchmark": "kernels", "complete": True, "machine": here}
    return {**about, "tasks": tasks, "again": []}


def everything(_: dict[str, Any], __: dict[str, Any]) -> bool:
    return True


def kernels(_: dict[str, Any], row: dict[str, Any]) -> bool:
    return row.get("by") == "ours" and "compile_seconds" in row


def named(name: str, operation: str = "softmax") -> Chosen:
    """The rows, or limits, of a name in the forward of an operation, at cpu."""

    def chosen(task: dict[str, Any], row: dict[str, Any]) -> bool:
        place = task["operation"], task["direction"], task["shape"]
        return place == (operation, "forward", "cpu") and name in (row.get("rung"), row.get("name"))

    return chosen


def slowed(found: dict[str, Any], factor: float, chosen: Chosen) -> dict[str, Any]:
    """The result with some rows and limits so many times as slow."""
    found = copy.deepcopy(found)
    for task in (*found["tasks"], *found["again"]):
        for each in (*task["rows"], *task["limits"]):
            if chosen(task, each):
                slow(each, factor)
    return found


def slow(each: dict[str, Any], factor: float) -> None:
    """Make a row, or a limit, so many times as slow."""
    if "pace" in each:
        each["pace"] *= factor
    else:
        *times, coverage = each["seconds"]
        each["seconds"] = [*(factor * value for value in times), coverage]


def again(found: dict[str, Any]) -> dict[str, Any]:
    """The result with its first task measured once more, as it was by others' results."""
    return {**found, "again": [copy.deepcopy(found["tasks"][0])]}


def verdicts(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """Of the rows that are not the same."""
    found = compare.differences(old, new)
    return {each.name: each.verdict for each in found if each.verdict != SAME}


def shown(found: list[Difference]) -> tuple[bool, str]:
    file = io.StringIO()
    slower = compare.show(found, Console(file=file, width=200))
    return slower, file.getvalue()


VECTORS = "softmax forward cpu vectors"
