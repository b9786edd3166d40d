"""A process that builds one side of a benchmark, warms it up, and works when it is told to.

    python -m benchmarks.worker '{"build": "benchmarks.ours:train", "options": {…}, "warm_up": 1}'

Lines of JSON. First it writes, unasked, how the warm-up went. Then for each {"steps": n} it reads,
it takes n steps and writes the seconds of each and its peak memory. When its input ends, it ends.
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


def timed(job: Job) -> tuple[float, Any]:
    """The seconds of one step, and what it returned."""
    arguments = job.draw()
    began = time.perf_counter()
    returned = job.step(*arguments)
    return time.perf_counter() - began, returned


def warm_up(build: Callable[[], Job], least: float) -> tuple[Job, dict[str, Any]]:
    """Builds the job and takes its first steps; what they took is none of the samples.

    least: how long they go on after the first, in which compilers work, in seconds.
    """
    began = time.perf_counter()
    job = build()
    report: dict[str, Any] = {"flops": job.flops, "build_seconds": time.perf_counter() - began}
    seconds: list[float] = []
    agreement: list[float] = []
    while len(seconds) < WARM_UP_STEPS or sum(seconds[1:]) < least:
        last, returned = timed(job)
        seconds.append(last)
        if len(seconds) <= WARM_UP_STEPS:
            agreement += job.agreement(returned)
    report |= {"first_step_seconds": seconds[0], "step_seconds": seconds[-1]}
    return job, report | {"agreement": agreement, "warm_up_seconds": time.perf_counter() - began}


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

    def answer(what: dict[str, Any]) -> None:
        print(json.dumps(what), file=answers, flush=True)

    asked = json.loads(sys.argv[1])
    module, _, function = asked["build"].partition(":")
    job, report = warm_up(
        lambda: getattr(importlib.import_module(module), function)(**asked["options"]),
        asked["warm_up"],
    )
    answer(report)
    for line in sys.stdin:
        seconds = [timed(job)[0] for _ in range(json.loads(line)["steps"])]
        answer({"seconds": seconds, "memory": peak_memory()})


if __name__ == "__main__":
    main()
