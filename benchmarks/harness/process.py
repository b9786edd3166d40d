"""Worker processes as the parent process sees them: they are asked, and they answer.

A process can be forked. The fork has all that its parent holds (modules, inputs, expected results)
without computing it again, and whatever happens to it, a crash or a hang, happens to it alone.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any

from benchmarks import ROOT

# The environment variables from which libraries take their number of threads.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
# Seconds that a worker has before it is killed: to exit when it is asked to, and to write why.
PATIENCE, EXIT = 2.0, 20.0
# Bytes at the end of what a process wrote to its standard error in which a reason is looked for.
TAIL = 1 << 16
NO_ANSWER = "no answer"  # the reason why a process that hangs has failed
REASONS = ("Traceback (most recent call last)", "Fatal Python error")


class WorkerError(RuntimeError):
    """Raised when a worker exits or hangs instead of answering; `traceback` may be empty."""

    def __init__(self, name: str, reason: str, traceback: str = "") -> None:
        super().__init__(f"{name}: {reason}")
        self.reason, self.traceback = reason, traceback


class Worker(ABC):
    """A process that answers requests. Errors call it by its name."""

    pid: int

    def __init__(self, name: str) -> None:
        self.name, self.closed = name, False
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self.socket, self.theirs = socket.socketpair()

    def ask(
        self, do: str, timeout: float | None = None, files: tuple[int, ...] = (), **values: Any
    ) -> Any:
        """Return the result of a method of the served object.

        Raises WorkerError if there is none, or none within `timeout` seconds; the process has ended
        then.
        """
        self.socket.settimeout(timeout)
        text = b""
        try:
            socket.send_fds(self.socket, [json.dumps({"do": do, **values}).encode() + b"\n"], files)
            while not text.endswith(b"\n") and (part := self.socket.recv(1 << 16)):
                text += part
        except TimeoutError:
            self.send(signal.SIGABRT)  # Python writes where each thread is.
            self.exit_code(PATIENCE)
            reason = f"{NO_ANSWER} within {timeout:g} s"
            raise WorkerError(self.name, reason, self.traceback()) from None
        except ConnectionError:
            text = b""
        if not text.endswith(b"\n"):
            raise WorkerError(self.name, self.reason(), self.traceback())
        return json.loads(text)

    def reason(self) -> str:
        """Return why the process is exiting, in one line."""
        code = self.exit_code(EXIT)
        if code is not None and code < 0:  # Out of memory is signal 9.
            return f"killed by signal {-code} ({signal.Signals(-code).name})"
        lines = self.written().splitlines()
        return lines[-1] if lines else f"exited with code {code}"

    def written(self) -> str:
        """Return the end of what the process wrote to its standard error."""
        size = os.fstat(self.errors.fileno()).st_size
        text = os.pread(self.errors.fileno(), TAIL, max(size - TAIL, 0))
        return text.decode(errors="replace").strip()

    def traceback(self) -> str:
        """Return the last traceback that the process wrote, or nothing."""
        text = self.written()
        start = max(text.rfind(reason) for reason in REASONS)
        return "" if start < 0 else text[start:].partition("\n\nExtension modules:")[0]

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    @abstractmethod
    def exit_code(self, patience: float) -> int | None:
        """Wait for the exit, kill the process after `patience` seconds, and return the code."""

    def close(self) -> None:
        """End the process by closing its input, or kill it if it is busy."""
        if not self.closed:
            self.closed = True
            self.socket.close()
            self.exit_code(PATIENCE)
            self.errors.close()


class Process(Worker):
    """A new process. Its libraries may use `threads` threads."""

    def __init__(self, name: str, serve: str, options: dict[str, Any], threads: int) -> None:
        super().__init__(name)
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        about = json.dumps({"serve": serve, "options": options})
        file = self.theirs.fileno()
        with self.theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.worker", str(file), about],
                env=os.environ | {"PYTHONPATH": path} | dict.fromkeys(THREADS, str(threads)),
                stdin=subprocess.DEVNULL,
                stdout=self.errors,
                stderr=self.errors,
                pass_fds=[file],
                # Ctrl-C reaches the parent only, which then ends its workers itself.
                start_new_session=True,
            )
        self.pid = self.process.pid

    def exit_code(self, patience: float) -> int | None:
        """Wait for the exit, kill the process after `patience` seconds, and return the code."""
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def fork(self, name: str) -> "Fork":
        """Return a fork of the process in its present state."""
        return Fork(name, self)


class Fork(Worker):
    """A fork of a process."""

    def __init__(self, name: str, parent: Process) -> None:
        super().__init__(name)
        self.parent = parent
        self.code: int | None = None
        with self.theirs:
            files = (self.theirs.fileno(), self.errors.fileno())
            self.pid = parent.ask("fork", files=files)

    def exit_code(self, patience: float) -> int | None:
        """Wait for the exit, kill the fork after `patience` seconds; None if its parent is gone."""
        if self.code is None:
            try:  # Only a parent learns the code, and only once.
                self.code = self.parent.ask("reap", pid=self.pid, patience=patience)
            except WorkerError:
                self.send(signal.SIGKILL)
        return self.code
