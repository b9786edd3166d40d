"""The process that works, and the end that tells it to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.processes import LIMIT
from toys import side

from benchmarks.worker import WARM_UP_STEPS
from benchmarks.workers import Worker, WorkerError


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find the toys."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))


@pytest.fixture
def worker() -> Iterator[Worker]:
    found = Worker(side("a", agreement=[2.0]), threads=3)
    yield found
    found.close()


def test_it_takes_as_many_steps_as_it_is_told(worker: Worker) -> None:
    assert [len(worker.turn(steps)["seconds"]) for steps in (4, 1)] == [4, 1]


def test_its_libraries_are_given_the_threads(worker: Worker) -> None:
    assert worker.ready["flops"] == 3


def test_it_tells_what_its_first_steps_must_agree_on(worker: Worker) -> None:
    assert worker.ready["agreement"] == [2.0] * WARM_UP_STEPS


def test_the_warm_up_is_reported_apart(worker: Worker) -> None:
    ready = worker.ready
    assert ready["warm_up_seconds"] >= ready["build_seconds"] + ready["first_step_seconds"]


def test_a_worker_that_fails_in_a_turn_says_why() -> None:
    worker = Worker(side("a", fails_at=WARM_UP_STEPS + 1), threads=1)
    try:
        with pytest.raises(WorkerError, match="a has stopped: ArithmeticError: the toy is broken"):
            worker.turn(1)
    finally:
        worker.close()


def test_a_worker_that_is_killed_between_turns_is_named() -> None:
    worker = Worker(side("a"), threads=1)
    worker.process.kill()
    worker.process.wait(LIMIT)
    try:
        with pytest.raises(WorkerError, match="a has stopped: killed by signal 9"):
            worker.turn(1)
    finally:
        worker.close()


def test_closing_ends_the_process(worker: Worker) -> None:
    worker.close()
    assert worker.process.returncode == 0
