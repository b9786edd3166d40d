"""Jobs in worker processes."""

import math
import multiprocessing
import time

import pytest

from tinygpt_np.gradcheck import workers


def test_results_come_in_order_until_a_job_fails() -> None:
    found = workers.results(math.sqrt, [4.0, 9.0, -1.0])
    assert (next(found), next(found)) == (2.0, 3.0)
    with pytest.raises(ValueError, match="math domain error"):
        next(found)
    assert multiprocessing.active_children() == []


def test_a_process_that_is_killed_ends_the_run_with_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "usable_cores", lambda: 1)
    found = workers.results(time.sleep, [0.0, 60.0])
    next(found)
    # The process must be in its second job: one that waits for a job holds the lock of the queue.
    time.sleep(2)
    for worker in multiprocessing.active_children():
        worker.kill()
    with pytest.raises(RuntimeError, match="a worker process has been killed"):
        next(found)
