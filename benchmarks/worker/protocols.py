"""Other ways to measure what the clock measures: a plain C program, and timeit."""

import statistics
import subprocess
import tempfile
import timeit
from pathlib import Path
from typing import Any

from benchmarks.worker.rungs import Rungs

SOURCE = Path(__file__).with_name("limits.c")
COMPILER = ("cc", "-O3", "-march=native", "-pthread")
# Repetitions by timeit of its loop of at least 0.2 s in a turn.
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


class Timeit(Rungs):
    """Rungs that timeit measures too, on the same arrays; with others times differ by 10 %."""

    def open(self, name: str, threads: int) -> dict[str, Any]:
        """Open a rung, and choose how often a loop repeats it."""
        found = super().open(name, threads)
        self.timer = timeit.Timer(self.gate.trial.step)
        self.number, _ = self.timer.autorange()
        return found

    def timeit(self) -> dict[str, Any]:
        """Return the median of the seconds per step of some loops."""
        seconds = self.timer.repeat(REPEATS, self.number)
        return {"seconds": [statistics.median(seconds) / self.number]}
