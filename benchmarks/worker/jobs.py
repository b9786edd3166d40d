"""Jobs in a worker process: training steps, sampled tokens, whole texts."""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.worker import named
from benchmarks.worker.clock import Timed

# The first steps, whose results must agree on all sides.
WARM_UP_STEPS = 2
# A turn takes as many steps as fill about this many seconds.
TURN_SECONDS = 0.6


@dataclass(frozen=True)
class Job:
    """A step that is repeated, and its FLOPs.

    draw: makes the arguments of a step, untimed. agreement: turns what a step returned into numbers
    that must be the same for every candidate.
    """

    step: Callable[..., Any]
    flops: float = 0.0
    draw: Callable[[], tuple[Any, ...]] = tuple
    agreement: Callable[[Any], list[float]] = lambda _: []


class Jobs:
    """The job of a worker process."""

    def open(
        self, build: str, options: dict[str, Any], warm_up: float, samples: int | None
    ) -> dict[str, Any]:
        """Build a job with a "module:function", take its first steps and return how that went.

        warm_up: seconds for which steps are taken after the first, in which compilers run.
        samples: steps per turn; None for as many as fill it.
        """
        began = time.perf_counter()
        job: Job = named(build)(**options)
        seconds: list[float] = []
        agreement: list[float] = []
        while len(seconds) < WARM_UP_STEPS or sum(seconds[1:]) < warm_up:
            arguments = job.draw()
            step_began = time.perf_counter()
            returned = job.step(*arguments)
            seconds.append(time.perf_counter() - step_began)
            if len(seconds) <= WARM_UP_STEPS:
                agreement += job.agreement(returned)
        self.timed = Timed(job.step, job.draw)
        self.samples = samples or steps_per_turn(seconds[-1])
        return {
            "flops": job.flops,
            "agreement": agreement,
            "first_seconds": seconds[0],
            "warm_up_seconds": time.perf_counter() - began,
        }

    def turn(self) -> dict[str, Any]:
        """Take a turn, and return the most memory used so far with it."""
        seconds = [self.timed.sample() for _ in range(self.samples)]
        return {"seconds": seconds, "memory": peak_memory()}


def steps_per_turn(step_seconds: float) -> int:
    """Return how many steps fill a turn, at least one."""
    return max(1, math.ceil(TURN_SECONDS / step_seconds - 0.5))


def peak_memory() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    status = Path("/proc/self/status")  # ru_maxrss includes the parent's size on Linux.
    if status.exists() and "VmHWM:" in (text := status.read_text()):  # Not in every sandbox.
        return int(text.partition("VmHWM:")[2].split()[0]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
