"""Training runs in a worker process, a part of their steps at a time."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from benchmarks.worker import named
from benchmarks.worker.clock import wait_for_sleep
from benchmarks.worker.jobs import peak_memory


@dataclass(frozen=True)
class Run:
    """A training run, compiled and ready: its steps, and how to take some and to evaluate.

    train: takes this many further steps. evaluate: returns the validation loss.
    """

    steps: int
    train: Callable[[int], Any]
    evaluate: Callable[[], float]


class Runs:
    """The training run of a worker process. The clock runs only while it trains."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock

    def open(self, build: str, options: dict[str, Any], evaluations: int) -> dict[str, Any]:
        """Build a run with a "module:function", and return the seconds that this took.

        evaluations: the number of turns in which all steps are taken.
        """
        began = self.clock()
        self.run: Run = named(build)(**options)
        steps, self.losses = self.run.steps, list[float]()
        ends = [steps * turn // evaluations for turn in range(evaluations + 1)]
        self.parts = [end - start for start, end in pairwise(ends)]
        return {"steps": steps, "warm_up_seconds": self.clock() - began}

    def turn(self) -> dict[str, Any]:
        """Train up to the next evaluation and evaluate; return the seconds of training.

        Also return all validation losses so far, and the most memory used.
        """
        steps = self.parts[len(self.losses)]
        began = self.clock()
        self.run.train(steps)
        seconds = self.clock() - began
        self.losses.append(self.run.evaluate())
        wait_for_sleep()
        return {"seconds": [seconds], "losses": self.losses, "memory": peak_memory()}
