"""Programs on several ranks, which mpirun starts."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers import processes
from helpers.processes import LIMIT

# That of the environment first, which belongs to the MPI that mpi4py loads.
FOLDERS = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
MPIRUN = shutil.which("mpirun", path=os.pathsep.join(FOLDERS))
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
    # On other hosts: started by this program, and in the tree of processes below mpirun.
    "PRTE_MCA_plm_ssh_agent": str(Path(__file__).parents[1] / "fixtures" / "as_host"),
    "PRTE_MCA_prte_leave_session_attached": "1",
}


def can_rename_hosts() -> bool:
    """Return whether this user may give the host another name for a process."""
    if shutil.which("unshare") is None:
        return False
    return not subprocess.run(["unshare", "--uts", "true"], capture_output=True).returncode


def is_open_mpi_5() -> bool:
    """Return whether the settings that begin with PRTE have an effect."""
    if MPIRUN is None:
        return False
    asked = [MPIRUN, "--version"]
    found = subprocess.run(asked, capture_output=True, text=True, env={**os.environ, **SETTINGS})
    return re.match(r"mpirun \(Open MPI\) [5-9]", found.stdout) is not None


# Three ranks on this machine and, where it can be had, on three that have a name each and whose
# messages travel by TCP.
LAYOUTS = [
    pytest.param(list[str](), id="one machine"),
    pytest.param(
        ["node1", "node2", "node3"], id="three machines",
        marks=pytest.mark.skipif(not is_open_mpi_5(), reason="needs mpirun of Open MPI 5"),
    ),
]  # fmt: skip
one_machine_and_three = pytest.mark.parametrize("hosts", LAYOUTS[: 2 if can_rename_hosts() else 1])


def start(
    ranks: int, *command: str, env: dict[str, str] | None = None, hosts: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """Start a command on several ranks, in a session of its own, which kill_session ends.

    Parameters
    ----------
    ranks, command
        The number of processes, and the program with its arguments.
    env
        Variables to be set in addition to those of this process.
    hosts
        The names of the machines, with one rank each.
    """
    assert MPIRUN is not None
    where = ["--host", ",".join(hosts), "--map-by", "ppr:1:node"] if hosts else []
    return processes.start(
        [MPIRUN, *where, "-n", str(ranks), *command],
        env={**os.environ, **SETTINGS, **(env or {})},
        start_new_session=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def mpirun(
    ranks: int,
    *command: str,
    timeout: float = LIMIT,
    env: dict[str, str] | None = None,
    hosts: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run a command on several ranks as start does; return its exit code and all that is written.

    Raises
    ------
    subprocess.TimeoutExpired
        If the command takes longer than timeout seconds, after all ranks are killed; a note says
        what they have written.
    """
    with start(ranks, *command, env=env, hosts=hosts) as process:
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
