"""Programs on several ranks, which mpirun starts."""

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import pytest
from helpers import processes
from helpers.processes import LIMIT

# That of the environment first, which belongs to the MPI that mpi4py loads.
FOLDERS = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
MPIRUN = which("mpirun", path=os.pathsep.join(FOLDERS))
needs_mpi = pytest.mark.skipif(
    MPIRUN is None or find_spec("mpi4py") is None, reason="needs mpi4py and mpirun"
)
# For Open MPI; MPICH allows all of it and ignores these. PRTE: from version 5 on.
SETTINGS = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    # More ranks than cores, each on any core; ranks that wait leave theirs to others.
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "OMPI_MCA_mpi_yield_when_idle": "1",
}


def start(ranks: int, *command: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a command on several ranks, in a session of its own, which kill_session ends.

    Parameters
    ----------
    ranks, command
        The number of processes, and the program with its arguments.
    env
        Variables to be set in addition to those of this process.
    """
    assert MPIRUN is not None
    return processes.start(
        [MPIRUN, "-n", str(ranks), *command], env={**os.environ, **SETTINGS, **(env or {})},
        start_new_session=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def mpirun(
    ranks: int, *command: str, timeout: float = LIMIT, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command on several ranks as start does; return its exit code and all that is written.

    Raises
    ------
    subprocess.TimeoutExpired
        If the command takes longer than timeout seconds, after all ranks are killed; a note says
        what they have written.
    """
    with start(ranks, *command, env=env) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException as error:
            kill_session(process.pid)
            error.add_note("\n".join(process.communicate()))
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def kill_session(leader: int) -> None:
    """Kill all processes of a session: each rank has a process group of its own."""
    for pid in (int(each) for each in os.listdir("/proc") if each.isdigit()):
        try:
            if os.getsid(pid) == leader:
                os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # It has just ended.
            continue
