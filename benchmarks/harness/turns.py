"""Timed steps in a worker process, which take turns when asked."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Timed:
    """A step to be timed. A turn ends after `samples` samples or after `turn_seconds`.

    before: called before each sample, untimed; returns the arguments of the step.
    repeat: steps per sample. warm_up: whether to take an untimed step before a turn. threads: how
    many the step uses. library_threads: whether these belong to a library such as OpenMP or BLAS.
    """

    step: Callable[..., Any]
    before: Callable[[], tuple[Any, ...]]
    samples: int
    turn_seconds: float = math.inf
    repeat: int = 1
    warm_up: bool = False
    threads: int = 1
    library_threads: bool = False


class TimedSteps:
    """Timed steps by number."""

    def __init__(self) -> None:
        self.timed: list[Timed] = []

    def add(self, timed: Timed) -> int:
        """Add a step and return the key by which its turns are asked for."""
        self.timed.append(timed)
        return len(self.timed) - 1

    def turn(self, key: int) -> dict[str, Any]:
        """Return the seconds per step of each sample."""
        timed = self.timed[key]
        seconds: list[float] = []
        spent = 0.0
        while spent < timed.turn_seconds and len(seconds) < timed.samples:
            arguments = timed.before()
            began = time.perf_counter()
            for _ in range(timed.repeat):
                timed.step(*arguments)
            elapsed = time.perf_counter() - began
            spent += elapsed
            seconds.append(elapsed / timed.repeat)
        return {"seconds": seconds}
