"""Results of the kernel benchmark, as quiet as can be, and what is slower in them."""

import copy
import io
from collections.abc import Callable
from typing import Any

from rich.console import Console

from benchmarks import compare, machine
from benchmarks.compare import Difference
from benchmarks.standing import SAME, SLOWER

KERNELS = ("naive", "vectors")
SIZES = {"cpu": 8, "lecture": 32, "gpt2": 64}


def row(name: str, seconds: float, threads: int = 1, by: str = "ours") -> dict[str, Any]:
    compiled = name not in ("Python", "NumPy")
    turns = [[1.2 * seconds, (1 + 0.002 * number) * seconds] for number in range(9)]
    about = {"rung": name, "by": by, "threads": threads, "seconds": turns}
    return {**about, "compile_seconds": 0.0 if compiled else None}


def limit(name: str, threads: int) -> dict[str, Any]:
    return {"name": name, "threads": threads, "amount": 1e9, "seconds": [[2e-3, 1e-3]] * 9}


def task(operation: str, direction: str, shape: str) -> dict[str, Any]:
    return {
        "operation": operation, "direction": direction, "shape": shape,
        "sizes": {"N": SIZES[shape]},
        "rows": [
            row("Python", 1e-2), row("NumPy", 1e-3), row("naive", 5e-4), row("vectors", 2e-4),
            row("parallel", 1e-3, 2), row("PyTorch", 1e-4, 2, "torch"),
        ],
        "limits": [limit(name, threads) for threads in (1, 2) for name in ("peak", "triad")],
        "controls": [row("parallel", 1e-3, 2)],
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
    return {"benchmark": "kernels", "complete": True, "machine": here, "tasks": tasks}


def everything(_: dict[str, Any], __: dict[str, Any]) -> bool:
    return True


def kernel(_: dict[str, Any], row: dict[str, Any]) -> bool:
    return row.get("by") == "ours" and row["compile_seconds"] is not None


def of_ours(name: str, *shapes: str) -> Callable[[dict[str, Any], dict[str, Any]], bool]:
    """A rung's rows of softmax forward; of all shapes unless told."""

    def chosen(task: dict[str, Any], row: dict[str, Any]) -> bool:
        operation, direction, shape = task["operation"], task["direction"], task["shape"]
        there = (operation, direction) == ("softmax", "forward") and shape in (shapes or SIZES)
        return there and row.get("rung") == name

    return chosen


def slowed(
    found: dict[str, Any], factor: float, chosen: Callable[[dict[str, Any], dict[str, Any]], bool]
) -> dict[str, Any]:
    """The result with some rows and limits so many times as slow."""
    found = copy.deepcopy(found)
    for task in found["tasks"]:
        for each in (*task["rows"], *task["limits"], *task["controls"]):
            if chosen(task, each):
                each["seconds"] = [[factor * value for value in turn] for turn in each["seconds"]]
    return found


def with_rounds(found: dict[str, Any], slow: int, factor: float) -> dict[str, Any]:
    """The result with so many slower rounds of the vectors of softmax forward cpu."""
    for number in range(slow):
        found["tasks"][0]["rows"][3]["seconds"][number] = [factor * 2e-4]
    return found


def verdicts(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """Of the rows that are not the same."""
    found = compare.differences(old, new)
    return {each.name: each.verdict for each in found if each.verdict != SAME}


def shown(found: list[Difference]) -> tuple[bool, str]:
    file = io.StringIO()
    slower = compare.show(found, Console(file=file, width=200))
    return slower, file.getvalue()


def each_shape(name: str, verdict: str = SLOWER) -> dict[str, str]:
    return {f"softmax forward {shape} {name}": verdict for shape in SIZES}


VECTORS = "softmax forward cpu vectors"
