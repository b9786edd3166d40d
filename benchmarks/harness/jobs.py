"""Jobs in a worker process: training steps, sampled tokens, whole texts."""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.turns import Timed, TimedSteps
from benchmarks.harness.worker import named

# The first steps, whose results must agree on all sides.
WARM_UP_STEPS = 2
# A turn takes as many steps as fill about this many seconds.
TURN_SECONDS = 0.6


def no_arguments() -> tuple[Any, ...]:
    """Return the arguments of a step that takes none."""
    return ()


def no_numbers(_: Any) -> list[float]:
    """Return nothing to agree on."""
    return []


@dataclass(frozen=True)
class Job:
    """A step that is repeated, and its FLOPs.

    draw: makes the arguments of a step, untimed. agreement: turns what a step returned into numbers
    that must be the same for every candidate.
    """

    step: Callable[..., Any]
    flops: float = 0.0
    draw: Callable[[], tuple[Any, ...]] = no_arguments
    agreement: Callable[[Any], list[float]] = no_numbers


class Jobs(TimedSteps):
    """The jobs of one worker process."""

    def open(
        self, build: str, options: dict[str, Any], warm_up: float, samples: int | None
    ) -> dict[str, Any]:
        """Build a job, take its first steps and return its key and how the warm-up went.

        Parameters
        ----------
        build : str
            The "module:function" that builds the job from the options.
        warm_up : float
            Seconds for which the warm-up goes on after the first step, in which compilers run.
        samples : int or None
            Steps per turn; None for as many as fill it.
        """
        began = time.perf_counter()
        job: Job = named(build)(**options)
        built = time.perf_counter() - began
        seconds: list[float] = []
        agreement: list[float] = []
        while len(seconds) < WARM_UP_STEPS or sum(seconds[1:]) < warm_up:
            arguments = job.draw()
            step_began = time.perf_counter()
            returned = job.step(*arguments)
            seconds.append(time.perf_counter() - step_began)
            if len(seconds) <= WARM_UP_STEPS:
                agreement += job.agreement(returned)
        return {
            "key": self.add(Timed(job.step, job.draw, samples or steps_per_turn(seconds[-1]))),
            "flops": job.flops,
            "agreement": agreement,
            "build_seconds": built,
            "first_seconds": seconds[0],
            "warm_up_seconds": time.perf_counter() - began,
        }

    def turn(self, key: int) -> dict[str, Any]:
        """Take a turn, and return the most memory used so far with it."""
        return super().turn(key) | {"memory": peak_memory()}


def steps_per_turn(step_seconds: float) -> int:
    """Return how many steps fill a turn, at least one."""
    return max(1, math.ceil(TURN_SECONDS / step_seconds - 0.5))


def peak_memory() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) * 1024
    import resource

    # In kilobytes, except on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
