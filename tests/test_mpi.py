"""Tests can start several ranks, which never outlive the test."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.mpi import kill_session, mpirun, needs_mpi, start

pytestmark = needs_mpi
GREET = """
from mpi4py import MPI
world = MPI.COMM_WORLD
print(f"{world.allgather(world.rank)}\\n", end="", flush=True)
"""
HANG = """
import os, time
print(f"{os.getpid()}\\n", end="", flush=True)
time.sleep(600)
"""


def test_more_ranks_than_cores_see_each_other() -> None:
    found = mpirun(3, sys.executable, "-c", GREET)
    assert found.stdout.splitlines() == ["[0, 1, 2]"] * 3, found
    assert found.returncode == 0


def test_ranks_that_take_too_long_are_ended() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        mpirun(2, sys.executable, "-c", HANG, timeout=0.1)


def test_all_ranks_are_killed_with_their_session() -> None:
    with start(2, sys.executable, "-c", HANG) as process:
        assert process.stdout is not None
        ranks = [Path("/proc", process.stdout.readline().strip()) for _ in range(2)]
        assert all(each.exists() for each in ranks)
        kill_session(process.pid)
    # The kernel takes a moment to remove them.
    deadline = time.monotonic() + 60
    while any(each.exists() for each in ranks) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(each.exists() for each in ranks)
