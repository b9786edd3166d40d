"""Sides that cost nothing, for the tests of the benchmarks' machinery."""

import os
import signal
import time
from typing import Any

from benchmarks.worker import Job
from benchmarks.workers import Side
from benchmarks.works import Work

TINY = Work("tiny", 2, 3, 12, 5, 4, 11, 2)


def side(name: str, **options: Any) -> Side:
    """A side of this file; its worker needs tests/ on its path."""
    return Side(name, "toys:build", options, warm_up=0.0)


def build(agreement: list[float] | None = None, fails_at: int = 0, interrupts_at: int = 0) -> Job:
    """A step of a millisecond that prints; at some step it fails, or presses its parent's Ctrl-C.

    Its FLOPs are the number of threads that the environment allows.
    """
    taken = 0

    def step() -> None:
        nonlocal taken
        taken += 1
        print("noise of a library", flush=True)
        time.sleep(1e-3)
        if taken == fails_at:
            raise ArithmeticError("the toy is broken")
        if taken == interrupts_at:
            os.kill(os.getppid(), signal.SIGINT)
            time.sleep(60)

    def agree(_: None) -> list[float]:
        return agreement or []

    return Job(float(os.environ["OPENBLAS_NUM_THREADS"]), lambda: (), step, agree)
