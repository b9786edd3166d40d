"""Made-up results of the kernel benchmark."""

import copy
from typing import Any

from benchmarks.harness.analysis import Interval, analyse
from benchmarks.harness.verdicts import judge

CACHES = {"L1": 48 << 10, "L2": 1280 << 10}
USAGE = {"busy": {"0": 0.02, "1": 0.97}, "steal": {"0": 0.0, "1": 0.04}, "others": 0.99}
RATE = (10e9, 9e9, 11e9, 0.9)
LIMITS = [
    {"name": "peak", "where": None, "threads": 1, "rate": RATE},
    {"name": "triad", "where": "L1", "threads": 1, "rate": RATE},
    {"name": "triad", "where": "L1", "threads": 2, "rate": RATE},
]
# The limits allow 10 GFLOP/s, and on one thread as many bytes per second.
SECONDS = {"loops": 0.04, "tiles": 0.01, "shared": 0.008, "theirs": 0.02}


def candidate(rung: str, threads: int = 1, **about: Any) -> dict[str, Any]:
    """Return a row with six turns."""
    fixed = {"rung": rung, "threads": threads, "by": "ours", "reference": False, "able": True}
    fixed["trained"] = rung in ("tiles", "shared")
    turns = [[SECONDS.get(rung, 0.001) * (1 + part / 100)] * 2 for part in range(6)]
    paid = {"compile_seconds": None, "first_seconds": 0.007, "idea": f"The idea of {rung}."}
    return {**fixed, **paid, "turns": turns, **about}


def limit(name: str, threads: int) -> dict[str, Any]:
    """Return a limit with six turns."""
    return {"name": name, "threads": threads, "amount": 10e9, "turns": [[1.0]] * 6}


def record(**changes: Any) -> dict[str, Any]:
    """Return the analysed record of a ladder of three rungs and a peer."""
    case: dict[str, Any] = {
        "operation": "matmul", "direction": "forward", "shape": "cpu", "sizes": {"M": 1024},
        "flops": 80_000_000, "bytes": 40_000_000, "working_set": 40, "rounds": 6,
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
    found = analyse(copy.deepcopy(case), LIMITS)
    # Verdicts as if all had controls, and CPUs although two threads have the peak of one.
    alike = [{**row, "ratio": Interval(1, 1, 1, 1)} for row in found["rows"] if found["controls"]]
    judge({**found, "limits": [], "controls": alike})
    return found


def found(*records: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return what kernels.run returns."""
    whole: dict[str, Any] = {
        "complete": True, "seed": 5, "options": {"threads": [1, 2], "rounds": 6}, "peers": {},
        "machine": {
            "date": "2026-01-02", "cpu": "Some CPU", "cpus": 2, "affinity": [0, 1],
            "pinned": False, "siblings": [], "governor": ["performance"], "usage": USAGE,
            "vector_bits": 256, "caches": CACHES, "load": 0.25, "system": "Some system",
            "python": "3.11.7", "versions": {"numpy": "2.4.0", "torch": None}, "blas": "Some BLAS",
            "commit": "abc+",
        },
        "usage": None, "left_out": {},
        "limits": LIMITS[:2],
        "cases": list(records or (record(),)),
    }  # fmt: skip
    return {**whole, **changes}
