"""Jobs and training runs that cost nothing, for the tests of the harness."""

import os
import signal
import time
from typing import Any

from benchmarks.experiments import Entry
from benchmarks.models.workloads import Workload
from benchmarks.worker.jobs import Job
from benchmarks.worker.training import Run

TINY = Workload("tiny", 2, 3, 12, 5, 4, 11, 2)


def entry(name: str, reference: bool = False, **options: Any) -> Entry:
    """Return a candidate with a job of this module."""
    return Entry(name, "helpers.toy_jobs:build", options, reference, warm_up=0.0)


def build(agreement: list[float] | None = None, fails_at: int = 0, interrupts_at: int = 0) -> Job:
    """Return a step of a millisecond that prints; it may fail, or press Ctrl-C in its parent.

    Its FLOPs are the number of threads in the environment.
    """
    taken = 0

    def step() -> None:
        nonlocal taken
        taken += 1
        print("a library prints", flush=True)
        time.sleep(1e-3)
        if taken == fails_at:
            raise ArithmeticError("the toy is broken")
        if taken == interrupts_at:
            os.kill(os.getppid(), signal.SIGINT)
            time.sleep(60)

    return Job(step, float(os.environ["OMP_NUM_THREADS"]), agreement=lambda _: agreement or [])


def run(losses: list[float], fails_at: int = 0, interrupts_at: int = 0) -> Run:
    """Return a run of two steps for each loss; in a turn it may fail, or press Ctrl-C."""
    left = iter(losses)
    turn = 0

    def train(steps: int) -> None:
        nonlocal turn
        turn += 1
        time.sleep(steps * 1e-3)
        if turn == fails_at:
            raise ArithmeticError("the toy is broken")
        if turn == interrupts_at:
            os.kill(os.getppid(), signal.SIGINT)
            time.sleep(60)

    return Run(2 * len(losses), train, lambda: next(left))
