"""Results of the kernel benchmark, as quiet as can be, and what is slower in them."""

import copy
import io
from collections.abc import Callable
from typing import Any

from rich.console import Console

from benchmarks import compare, machine
from benchmarks.compare import Difference
from benchmarks.standing import SAME

SIZES = {"cpu": 8, "lecture": 32}
ROUNDS = 9
Chosen = Callable[[dict[str, Any], dict[str, Any]], bool]


def row(name: str, seconds: float, threads: int = 1, by: str = "ours") -> dict[str, Any]:
    compiled = by == "ours" and name not in ("Python", "NumPy")
    turns = [[(1 + 0.002 * number) * seconds] * 3 for number in range(ROUNDS)]
    about = {"rung": name, "by": by, "threads": threads, "seconds": turns}
    return {**about, "compile_seconds": 0.0 if compiled else None}


def limit(name: str, threads: int) -> dict[str, Any]:
    return {"name": name, "threads": threads, "amount": 1e9, "seconds": [[1e-3]] * ROUNDS}


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
    here = {"cpu": machine.cpu_name(), "vector_bits": machine.vector_bits()}
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
    return row.get("by") == "ours" and row["compile_seconds"] is not None


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
                each["seconds"] = [[factor * value for value in turn] for turn in each["seconds"]]
    return found


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
