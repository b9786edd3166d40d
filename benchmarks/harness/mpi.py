"""Commands under mpirun, and what is missing to run them."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from benchmarks import ROOT
from benchmarks.harness.process import PATIENCE, THREADS, WorkerError

INSTALL = "pip install '.[mpi]', or a system MPI and pip install mpi4py"
# Open MPI refuses root, which containers use, without these.
ROOT_ALLOWED = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def mpirun() -> str | None:
    """Return the path of mpirun: next to this Python, or else the first on PATH."""
    return which("mpirun", path=str(Path(sys.executable).parent)) or which("mpirun")


def missing(cores: int) -> str | None:
    """Return why two ranks cannot be measured here, or None."""
    if find_spec("mpi4py") is None or mpirun() is None:
        return f"mpi4py and mpirun are not installed: {INSTALL}"
    return None if cores > 1 else "two ranks need two cores"


def under_mpirun(ranks: int, command: Sequence[str]) -> list[str]:
    """Return a command that runs another in each rank."""
    return [mpirun() or "mpirun", "-n", str(ranks), *command]


@contextmanager
def running(
    command: Sequence[str], threads: int, folder: Path | None = None
) -> Generator[Iterator[str]]:
    """Run a command and give the lines that it prints, until it or the block ends.

    Raises WorkerError, with the last line of its errors, if it fails.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    more = ROOT_ALLOWED | dict.fromkeys(THREADS, str(threads)) | {"PYTHONPATH": path}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            command, env=os.environ | more, cwd=folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8", errors="replace",
            # Ctrl-C reaches the parent only, which then ends the command itself.
            start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            with process.stdout:
                yield process.stdout
            code = process.wait()
        finally:
            end(process)
        if code:
            errors.seek(0)
            lines = errors.read().split("\n")
            said = [line.strip() for line in lines if line.strip(" -\t")]
            raise WorkerError(Path(command[0]).name, said[-1] if said else f"exited with {code}")


def end(process: subprocess.Popen[str]) -> None:
    """End a process that may still run, and all that is left of what it has started."""
    try:
        if process.poll() is None:
            process.terminate()  # mpirun ends its ranks.
            process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        pass
    finally:  # Also after a second Ctrl-C.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
