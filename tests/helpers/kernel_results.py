"""Made-up results of the kernel benchmark: records before the analysis, and quiet whole results."""

import copy
import io
from collections.abc import Callable
from typing import Any

from rich.console import Console

from benchmarks import machine
from benchmarks.harness import compare
from benchmarks.harness.analysis import SAME, analyse
from benchmarks.harness.compare import Difference
from tinygpt_np.machine import processor_name

CACHES = {"L1": 48 << 10, "L2": 1280 << 10}
# The limits allow 10 FLOP/s, and on one thread as many bytes per second.
SECONDS = {"loops": 40.0, "tiles": 10.0, "shared": 8.0, "theirs": 20.0}
Chosen = Callable[[dict[str, Any], dict[str, Any]], bool]


def candidate(rung: str, threads: int = 1, **about: Any) -> dict[str, Any]:
    """Return a row with six turns."""
    fixed = {"rung": rung, "threads": threads, "by": "ours", "reference": False, "able": True}
    turns = [[SECONDS.get(rung, 1.0) * (1 + part / 100)] * 2 for part in range(6)]
    paid = {"compile_seconds": None, "first_seconds": 7.0, "idea": f"The idea of {rung}."}
    return {**fixed, **paid, "turns": turns, **about}


def limit(name: str, threads: int) -> dict[str, Any]:
    """Return a limit with six turns."""
    return {"name": name, "threads": threads, "amount": 10.0, "turns": [[1.0]] * 6}


def record(**changes: Any) -> dict[str, Any]:
    """Return the analysed record of a ladder of three rungs and a peer."""
    case: dict[str, Any] = {
        "operation": "matmul", "direction": "forward", "shape": "cpu", "sizes": {"M": 1024},
        "flops": 80, "bytes": 40, "working_set": 40, "rounds": 6,
        "controls": [candidate("tiles"), candidate("shared", 2)],
        "rows": [
            candidate("loops"),
            candidate("tiles", compile_seconds=0.25),
            candidate("shared", 2, compile_seconds=0),
            candidate("theirs", by="torch", reference=True),
        ],
        "limits": [limit(name, count) for count in (1, 2) for name in ("peak", "triad")],
    }  # fmt: skip
    case |= changes
    names = {row["rung"] for row in case["rows"]}
    case["controls"] = [each for each in case["controls"] if each["rung"] in names]
    return analyse(copy.deepcopy(case), CACHES)


def found(*records: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return what kernels.run returns."""
    rate = (10e9, 9e9, 11e9, 0.9)
    whole: dict[str, Any] = {
        "complete": True, "seed": 5, "options": {"threads": [1, 2], "rounds": 6}, "peers": {},
        "machine": {
            "date": "2026-01-02", "cpu": "Some CPU", "cpus": 2, "affinity": [0, 1],
            "vector_bits": 256, "caches": CACHES, "load": 0.25, "system": "Some system",
            "python": "3.11.7", "versions": {"numpy": "2.4.0", "torch": None}, "blas": "Some BLAS",
            "commit": "abc+",
        },
        "load_after": 1.75, "left_out": {},
        "limits": [
            {"name": "peak", "where": None, "threads": 1, "rate": rate},
            {"name": "triad", "where": "L1", "threads": 1, "rate": rate},
        ],
        "cases": list(records or (record(),)),
    }  # fmt: skip
    return {**whole, **changes}


# Quiet results, as --compare reads them from files.


def row(name: str, seconds: float, threads: int = 1, by: str = "ours") -> dict[str, Any]:
    """Return a row of a file."""
    compiled = by == "ours" and name not in ("Python", "NumPy")
    paid = {"compile_seconds": 0.0} if compiled else {}
    estimate = [1.008 * seconds, 1.002 * seconds, 1.014 * seconds, 0.96]
    return {"rung": name, "by": by, "threads": threads, "seconds": estimate, **paid}


def case(operation: str, direction: str, shape: str) -> dict[str, Any]:
    """Return a case of a file."""
    return {
        "operation": operation, "direction": direction, "shape": shape,
        "sizes": {"N": {"cpu": 8, "lecture": 32}[shape]},
        "rows": [
            row("Python", 1e-2), row("NumPy", 1e-3), row("naive", 5e-4), row("vectors", 2e-4),
            row("parallel", 1e-3, 2), row("PyTorch", 1e-4, 1, "torch"),
        ],
        "limits": [
            {"name": name, "threads": threads, "rate": 1e12, "pace": 1e-12}
            for threads in (1, 2) for name in ("peak", "triad")
        ],
    }  # fmt: skip


def result() -> dict[str, Any]:
    """Return a quiet result of this machine."""
    here = {"cpu": processor_name(), "vector_bits": machine.vector_bits()}
    records = [
        case(operation, direction, shape)
        for operation in ("softmax", "gelu")
        for direction in ("forward", "backward")
        for shape in ("cpu", "lecture")
    ]
    about = {"benchmark": "kernels", "complete": True, "machine": here}
    return {**about, "cases": records, "again": []}


def everything(_: dict[str, Any], __: dict[str, Any]) -> bool:
    """Choose all rows and limits."""
    return True


def kernels(_: dict[str, Any], row: dict[str, Any]) -> bool:
    """Choose the rows with our kernels."""
    return row.get("by") == "ours" and "compile_seconds" in row


def named(name: str, operation: str = "softmax") -> Chosen:
    """Choose the rows or limits of a name in the forward of an operation, at cpu."""

    def chosen(case: dict[str, Any], row: dict[str, Any]) -> bool:
        place = case["operation"], case["direction"], case["shape"]
        return place == (operation, "forward", "cpu") and name in (row.get("rung"), row.get("name"))

    return chosen


def slowed(found: dict[str, Any], factor: float, chosen: Chosen) -> dict[str, Any]:
    """Return the result with some rows and limits `factor` times as slow."""
    found = copy.deepcopy(found)
    for case in (*found["cases"], *found["again"]):
        for each in (*case["rows"], *case["limits"]):
            if chosen(case, each):
                slow(each, factor)
    return found


def slow(each: dict[str, Any], factor: float) -> None:
    """Make a row or a limit `factor` times as slow."""
    if "pace" in each:
        each["pace"] *= factor
    else:
        *times, coverage = each["seconds"]
        each["seconds"] = [*(factor * value for value in times), coverage]


def again(found: dict[str, Any]) -> dict[str, Any]:
    """Return the result with its first case measured a second time."""
    return {**found, "again": [copy.deepcopy(found["cases"][0])]}


def verdicts(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """Return the verdicts of the rows that are not the same."""
    found = compare.differences(old, new)
    return {each.name: each.verdict for each in found if each.verdict != SAME}


def shown(found: list[Difference]) -> tuple[bool, str]:
    """Return whether anything is slower, and what is shown."""
    file = io.StringIO()
    slower = compare.show(found, Console(file=file, width=200))
    return slower, file.getvalue()


VECTORS = "softmax forward cpu vectors"
