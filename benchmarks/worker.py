"""A process that works when it is told to.

    python -m benchmarks.worker '{"serve": "module:Class", "options": {…}}'

Lines of JSON. For each {"do": method, …} it reads, it calls that method of the class's one object
with the other values, and writes what that returned. When its input ends, it ends.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

# A warm-up takes at least so many steps, and these are the ones that must agree.
WARM_UP_STEPS = 2


class Job(NamedTuple):
    """What a worker repeats. flops: of a step.

    draw makes the arguments of a step, untimed; step is what is timed; agreement turns what a step
    returned into numbers that must be the same on every side.
    """

    flops: float
    draw: Callable[[], tuple[Any, ...]]
    step: Callable[..., Any]
    agreement: Callable[[Any], list[float]]


class Steps:
    """Repeats the steps of one job. build: "module:function" that makes it from the options."""

    def __init__(self, build: str, options: dict[str, Any]) -> None:
        self.build, self.options = build, options

    def start(self, warm_up: float) -> dict[str, Any]:
        """Builds the job and takes its first steps; what they took is none of the samples.

        warm_up: how long they go on after the first, in which compilers work, in seconds.
        """
        began = time.perf_counter()
        self.job: Job = named(self.build)(**self.options)
        built = time.perf_counter() - began
        seconds: list[float] = []
        agreement: list[float] = []
        while len(seconds) < WARM_UP_STEPS or sum(seconds[1:]) < warm_up:
            last, returned = self.timed()
            seconds.append(last)
            if len(seconds) <= WARM_UP_STEPS:
                agreement += self.job.agreement(returned)
        report = {"flops": self.job.flops, "build_seconds": built, "agreement": agreement}
        report |= {"first_step_seconds": seconds[0], "step_seconds": seconds[-1]}
        return report | {"warm_up_seconds": time.perf_counter() - began}

    def timed(self) -> tuple[float, Any]:
        """The seconds of one step, and what it returned."""
        arguments = self.job.draw()
        began = time.perf_counter()
        returned = self.job.step(*arguments)
        return time.perf_counter() - began, returned

    def turn(self, steps: int) -> dict[str, Any]:
        """The seconds of each of so many steps, and the most memory so far."""
        return {"seconds": [self.timed()[0] for _ in range(steps)], "memory": peak_memory()}


def named(place: str) -> Any:
    """What stands at "module:name"."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def peak_memory() -> int:
    """The most bytes that this process has had resident."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) * 1024
    import resource

    # In kilobytes, but on macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # Whatever a library prints must not be taken for an answer.

    asked = json.loads(sys.argv[1])
    server = named(asked["serve"])(**asked["options"])
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(server, request.pop("do"))(**request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
