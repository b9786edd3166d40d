"""Worker processes that are killed."""

import multiprocessing

import pytest

from tinygpt_np.gradcheck.workers import WorkerProcesses


def test_a_process_that_has_been_killed_is_reported() -> None:
    with multiprocessing.get_context("spawn").Pool(1):
        workers = WorkerProcesses()
        workers.check()
        workers.pids.add(0)  # The id of no process.
        with pytest.raises(RuntimeError, match="a worker process has been killed"):
            workers.check()
