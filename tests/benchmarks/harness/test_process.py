"""Worker processes and the jobs in them."""

import os
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from helpers.processes import LIMIT

from benchmarks.harness.process import Process, WorkerError
from benchmarks.worker import jobs
from benchmarks.worker.jobs import WARM_UP_STEPS

TOY: dict[str, Any] = {"build": "helpers.toy_jobs:build", "warm_up": 0.02, "samples": 7}


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
    answer = process.ask("turn")
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
    with pytest.raises(WorkerError, match=r"^a: killed by signal 9 \(SIGKILL\)$"):
        process.ask("turn")


# Forks of a process that serves helpers.toy_crashes


@pytest.fixture
def parent(toys: None) -> Iterator[Process]:
    with closing(Process("parent", "helpers.toy_crashes:Crashes", {"value": 1}, 1)) as found:
        yield found


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_fork_has_the_state_of_its_parent_and_changes_its_own(parent: Process) -> None:
    with closing(parent.fork("fork")) as fork:
        assert parent.ask("add", number=10) == 11
        assert fork.ask("add", number=1) == 2
        with closing(parent.fork("later")) as later:
            assert later.ask("add", number=0) == 11
            assert fork.ask("add", number=1) == 3  # It is not disturbed by its siblings.
    assert all(ended(each.pid) for each in (fork, later))


@pytest.mark.parametrize(
    ("how", "reason", "said"),
    [
        ("segfault", r"killed by signal 11 \(SIGSEGV\)", "in segfault"),
        ("abort", r"killed by signal 6 \(SIGABRT\)", "in abort"),
        ("fail", "ArithmeticError: the toy is broken", "in fail"),
        ("leave", "exited with code 3", ""),
        ("leave_python", "SystemExit: 4", "in leave_python"),
        ("hang", "no answer within 0.5 s", "in hang"),
        ("hang_in_c", "no answer within 0.5 s", "in hang_in_c"),
    ],
)
def test_a_fork_that_crashes_or_hangs_ends_alone_and_says_why(
    parent: Process, how: str, reason: str, said: str
) -> None:
    fork = parent.fork("fork")
    with closing(parent.fork("sibling")) as sibling, closing(fork):
        with pytest.raises(WorkerError, match=rf"^fork: {reason}$") as caught:
            fork.ask(how, timeout=0.5 if "hang" in how else LIMIT)
        assert said in caught.value.traceback
        assert ended(fork.pid)
        assert sibling.ask("add", number=1) == 2
        assert parent.ask("add", number=1) == 2


def test_what_a_fork_prints_is_no_answer_and_is_not_mixed_with_that_of_others(
    parent: Process,
) -> None:
    with closing(parent.fork("a")) as a, closing(parent.fork("b")) as b:
        assert [each.ask("say", text=each.name) for each in (a, b)] == ["a", "b"]
        assert (a.written(), b.written()) == ("a\na", "b\nb")


def test_forks_of_a_parent_that_died_still_end(parent: Process) -> None:
    fork = parent.fork("fork")
    parent.process.kill()
    parent.process.wait(LIMIT)
    assert fork.ask("add", number=1) == 2
    fork.close()
    deadline = time.monotonic() + LIMIT
    while not ended(fork.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ended(fork.pid)


def test_closing_ends_a_busy_fork(parent: Process) -> None:
    fork = parent.fork("fork")
    with pytest.raises(KeyboardInterrupt):
        fork.ask("hang", timeout=LIMIT, interrupt=os.getpid())
    fork.close()
    assert ended(fork.pid)
