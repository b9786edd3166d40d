"""A worker process as the parent process sees it: it is asked, and it answers."""

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks import ROOT

# The environment variables from which libraries take their number of threads.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
# Seconds that a worker has to exit before it is killed.
PATIENCE = 2.0


class WorkerError(RuntimeError):
    """Raised when a worker exits instead of answering."""


class Process:
    """A worker process. Its libraries may use `threads` threads; errors call it by its name."""

    def __init__(self, name: str, serve: str, options: dict[str, Any], threads: int) -> None:
        self.name = name
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
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
            # Ctrl-C reaches the parent only, which then ends its workers itself.
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.requests, self.answers = self.process.stdin, self.process.stdout

    def ask(self, do: str, **values: Any) -> Any:
        """Return the result of a method of the served object; WorkerError if there is none."""
        try:
            print(json.dumps({"do": do, **values}), file=self.requests, flush=True)
        except BrokenPipeError:
            self.process.wait()
        line = self.answers.readline()
        if not line:
            raise WorkerError(f"{self.name} exited: {self.reason()}")
        return json.loads(line)

    def reason(self) -> str:
        """Return why the process has exited, in one line."""
        code = self.process.wait()
        if code < 0:  # Out of memory is signal 9.
            return f"killed by signal {-code}"
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {code}"

    def close(self) -> None:
        """End the process by closing its input, or kill it if it is busy."""
        try:
            self.requests.close()
            self.process.wait(PATIENCE)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.answers.close()
        self.errors.close()
