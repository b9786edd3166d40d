"""Worker processes and the jobs in them."""

from collections.abc import Iterator

import pytest
from helpers.processes import LIMIT

from benchmarks.harness.process import Process, WorkerError
from benchmarks.worker import jobs
from benchmarks.worker.jobs import WARM_UP_STEPS

TOY = {"build": "helpers.toy_jobs:build", "warm_up": 0.02, "samples": 7}


@pytest.fixture
def process(toys: None) -> Iterator[Process]:
    found = Process("a", "benchmarks.worker.jobs:Jobs", {}, threads=3)
    yield found
    found.close()


def test_a_job_warms_up_and_takes_turns_until_it_is_closed(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = process.ask("open", **TOY, options={"agreement": [2.0]})
    assert report["flops"] == 3  # The toy's FLOPs are the threads of its environment.
    assert report["agreement"] == [2.0] * WARM_UP_STEPS
    assert report["warm_up_seconds"] >= 0.02 + report["first_seconds"]
    answer = process.ask("turn", key=report["key"])
    assert len(answer["seconds"]) == 7
    assert all(seconds >= 1e-3 for seconds in answer["seconds"])
    assert 1e6 < answer["memory"] < 1e9
    monkeypatch.setattr("benchmarks.harness.process.PATIENCE", LIMIT)
    process.close()
    assert process.process.returncode == 0


def test_a_turn_takes_as_many_steps_as_fill_it_and_at_least_one() -> None:
    steps = [jobs.steps_per_turn(seconds) for seconds in (0.001, 0.035, 0.45, 12.0)]
    assert steps == [600, 17, 1, 1]


def test_a_worker_that_is_killed_says_so(process: Process) -> None:
    process.process.kill()
    process.process.wait(LIMIT)
    with pytest.raises(WorkerError, match="a exited: killed by signal 9"):
        process.ask("turn", key=0)
