"""What kernels.run returns, made up: a ladder of three rungs and a peer, timed in six rounds."""

import copy
from typing import Any

from benchmarks.standing import stand

CACHES = {"L1": 48 << 10, "L2": 1280 << 10}
# Six rounds each; the limits allow 10 FLOP/s, and bytes as fast as that on one thread.
SECONDS = {"loops": 40.0, "tiles": 10.0, "shared": 8.0, "theirs": 20.0}


def entrant(rung: str, threads: int = 1, **about: Any) -> dict[str, Any]:
    fixed = {"rung": rung, "threads": threads, "by": "ours", "reference": False, "able": True}
    turns = [[SECONDS.get(rung, 1.0) * (1 + part / 100)] * 2 for part in range(6)]
    paid = {"compile_seconds": None, "first_seconds": 7.0, "idea": f"The idea of {rung}."}
    return {**fixed, **paid, "seconds": turns, **about}


def limit(name: str, threads: int) -> dict[str, Any]:
    return {"name": name, "threads": threads, "amount": 10.0, "seconds": [[1.0]] * 6}


def record(**changes: Any) -> dict[str, Any]:
    task: dict[str, Any] = {
        "operation": "matmul", "direction": "forward", "shape": "cpu", "sizes": {"M": 1024},
        "flops": 80, "bytes": 40, "working_set": 40, "rounds": 6,
        "controls": [entrant("tiles"), entrant("shared", 2)],
        "rows": [
            entrant("loops"),
            entrant("tiles", compile_seconds=0.25),
            entrant("shared", 2, compile_seconds=0),
            entrant("theirs", by="torch", reference=True),
        ],
        "limits": [limit(name, count) for count in (1, 2) for name in ("peak", "triad")],
    }  # fmt: skip
    task |= changes
    names = {row["rung"] for row in task["rows"]}
    task["controls"] = [each for each in task["controls"] if each["rung"] in names]
    return stand(copy.deepcopy(task), CACHES)


def found(*tasks: dict[str, Any], **changes: Any) -> dict[str, Any]:
    rate = {"median": 10e9, "low": 9e9, "high": 11e9, "coverage": 0.9}
    whole: dict[str, Any] = {
        "complete": True, "seed": 5, "options": {"threads": [1, 2], "rounds": 6},
        "machine": {
            "date": "2026-01-02", "cpu": "Some CPU", "cpus": 2, "affinity": [0, 1],
            "vector_bits": 256, "caches": CACHES, "load": 0.25, "system": "Some system",
            "python": "3.11.7", "versions": {"numpy": "2.4.0", "torch": None}, "blas": "Some BLAS",
            "commit": "abc+",
        },
        "load_after": 1.75, "left_out": {}, "stories": {"matmul": "The story."},
        "limits": [
            {"name": "peak", "where": None, "threads": 1, "rate": rate},
            {"name": "triad", "where": "L1", "threads": 1, "rate": rate},
        ],
        "tasks": list(tasks or (record(),)),
    }  # fmt: skip
    return {**whole, **changes}
