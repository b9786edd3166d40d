"""Other ways to measure what the clock measures: a plain C program, and timeit."""

import statistics
import subprocess
import tempfile
import timeit
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import cases, ladders
from benchmarks.worker.gate import Trial
from benchmarks.worker.problem import Problem
from tinygpt_np.compiled.threads import limited

SOURCE = Path(__file__).with_name("limits.c")
COMPILER = ("cc", "-O3", "-march=native", "-pthread")
# How often timeit repeats its loop of at least 0.2 s in a turn.
REPEATS = 3


class Program:
    """The limits of the machine as limits.c measures them; opened and asked like limits.Limits."""

    def compile(self) -> None:
        """Compile the program."""
        self.folder = tempfile.TemporaryDirectory()
        self.path = str(Path(self.folder.name, "limits"))
        subprocess.run([*COMPILER, str(SOURCE), "-o", self.path], check=True)

    def open(self, name: str, threads: int, size: int) -> dict[str, Any]:
        """Choose a limit."""
        self.request = [self.path, name, str(threads), str(size)]
        return {}

    def turn(self) -> dict[str, Any]:
        """Run the program, and return the seconds per FLOP or byte of its samples."""
        amount, *seconds = map(float, subprocess.check_output(self.request).split())
        return {"seconds": [each / amount for each in seconds]}


class Timeit:
    """A rung of a ladder on one thread, as timeit measures it."""

    def open(self, operation: str, direction: str, shape: str, name: str) -> dict[str, Any]:
        """Prepare a rung, and choose how often a loop repeats it."""
        self.limit = ExitStack()
        self.limit.enter_context(limited(1))
        (rung,) = (rung for rung in ladders.rungs(operation) if rung.name == name)
        problem = Problem(cases.case(operation, direction, shape), 0, 0)
        self.trial = Trial(rung.runners[direction], problem, 1, ThreadPoolExecutor(1))
        self.trial.give(problem)
        self.trial.take()
        self.timer = timeit.Timer(self.trial.step)
        self.number, _ = self.timer.autorange()
        return {}

    def turn(self) -> dict[str, Any]:
        """Return the median of the seconds per step of some loops."""
        seconds = self.timer.repeat(REPEATS, self.number)
        return {"seconds": [statistics.median(seconds) / self.number]}
