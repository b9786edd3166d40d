"""The end of a worker that tells it to work: starts the process, asks, and ends it."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Whatever a library takes its number of threads from.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
# How long a worker may take to end by itself, in seconds.
PATIENCE = 2.0


class WorkerError(RuntimeError):
    """A worker ended when it should have answered."""


@dataclass(frozen=True)
class Side:
    """One side of a benchmark. build: "module:function" that makes its Job from the options.

    warm_up: how many seconds of steps come before its first turn.
    """

    name: str
    build: str
    options: dict[str, Any]
    warm_up: float = 1.0


class Process:
    """A worker's process. name: in errors. serve: the "module:Class" that answers."""

    def __init__(self, name: str, serve: str, options: dict[str, Any], threads: int) -> None:
        self.name = name
        # Closed with the worker.
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "benchmarks.worker",
                json.dumps({"serve": serve, "options": options}),
            ],
            env=os.environ | {"PYTHONPATH": path} | dict.fromkeys(THREADS, str(threads)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            # Ctrl-C is for the parent, which then ends its workers itself.
            start_new_session=True,
        )

    def ask(self, do: str, **values: Any) -> Any:
        """What a method of the object there returns. Raises WorkerError if the process ends."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            print(json.dumps({"do": do, **values}), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            self.process.wait()
        line = self.process.stdout.readline()
        if not line:
            raise WorkerError(f"{self.name} has stopped: {self.last_words()}")
        return json.loads(line)

    def last_words(self) -> str:
        """Why the process has ended, in a line."""
        code = self.process.wait()
        if code < 0:  # Out of memory is signal 9.
            return f"killed by signal {-code}"
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip().splitlines()
        return said[-1] if said else f"exit code {code}"

    def close(self) -> None:
        """Ends the process: at once if it is at work, else by ending its input."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.close()
            self.process.wait(PATIENCE)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()


class Worker(Process):
    """A side at work in a process of its own. ready: how its warm-up went."""

    def __init__(self, side: Side, threads: int) -> None:
        """Starts it, and returns when it has warmed up. Raises WorkerError."""
        options = {"build": side.build, "options": side.options}
        super().__init__(side.name, "benchmarks.worker:Steps", options, threads)
        self.side = side
        try:
            self.ready: dict[str, Any] = self.ask("start", warm_up=side.warm_up)
        except BaseException:
            self.close()
            raise

    def turn(self, steps: int) -> dict[str, Any]:
        """Lets it take some steps: {"seconds": [of each], "memory": most bytes so far}."""
        return self.ask("turn", steps=steps)
