"""Threads that wait for each other: turns, a barrier, and what happens when one never comes."""

import functools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from helpers.small_gpts import BATCH, CONFIG, MOST_ROWS, STUCK, generic

from tinygpt_np.compiled import engine as parallel
from tinygpt_np.compiled import waiting
from tinygpt_np.compiled.engine import CompiledEngine
from tinygpt_np.compiled.waiting import Barrier, Stopped, StuckError, Turns, run_together


def finish(turns: Turns | Barrier, *jobs: Callable[[], object]) -> bool:
    """Run each job on a thread of its own; return whether all have ended in time."""
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    end = time.monotonic() + STUCK
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0))
    finished = not any(thread.is_alive() for thread in threads)
    turns.stop()
    return finished


@pytest.mark.parametrize("order", [range(12), range(11, -1, -1), np.argsort(np.sin(range(12)))])
def test_turns_come_in_the_order_of_the_numbers(order: Iterable[int]) -> None:
    turns, came = Turns(), list[int]()

    def take_turn(number: int) -> None:
        turns.wait("a", number)
        came.append(number)
        turns.done("a", number)

    assert finish(turns, *(functools.partial(take_turn, number) for number in order))
    assert came == list(range(12))


def test_each_gradient_has_its_own_turns() -> None:
    turns = Turns()
    turns.done("a", 0)
    assert finish(turns, lambda: turns.wait("a", 1), lambda: turns.wait("b", 0))


@pytest.mark.parametrize("waiting", [1, 5])
def test_stopping_wakes_all_who_wait(waiting: int) -> None:
    turns, woken = Turns(), list[int]()
    begun = threading.Barrier(waiting + 1)

    def wait(number: int) -> None:
        begun.wait(STUCK)
        with pytest.raises(Stopped):
            turns.wait("a", number)
        woken.append(number)

    def stop() -> None:
        begun.wait(STUCK)
        time.sleep(0.05)  # Until they sleep.
        turns.stop()

    assert finish(turns, stop, *(functools.partial(wait, n) for n in range(1, waiting + 1)))
    assert sorted(woken) == list(range(1, waiting + 1))


def test_a_thread_that_waits_after_a_stop_is_stopped_too() -> None:
    turns, stopped = Turns(), list[bool]()
    turns.stop()

    def wait() -> None:
        with pytest.raises(Stopped):
            turns.wait("a", 3)
        stopped.append(True)

    assert finish(turns, wait)
    assert stopped


def test_after_a_restart_turns_begin_with_the_first() -> None:
    turns, came = Turns(), list[int]()
    turns.done("a", 0)
    turns.stop()
    turns.restart()

    def take_turn(number: int) -> None:
        turns.wait("a", number)
        came.append(number)
        turns.done("a", number)

    assert finish(turns, lambda: take_turn(1), lambda: take_turn(0))
    assert came == [0, 1]


def test_a_turn_that_never_comes_is_an_error_that_names_the_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "INTERVAL", 0.01)
    with pytest.raises(StuckError, match=r"turn of micro-batch 2 to add to the gradient of a, "):
        Turns().wait("a", 2)


def test_time_in_which_the_process_was_suspended_counts_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A wait whose first interval is over at once still has the others."""
    turns, intervals = Turns(), list[float]()

    def wait_for(ready: Callable[[], bool], interval: float) -> bool:
        intervals.append(interval)
        if len(intervals) == waiting.INTERVALS:
            turns.next["a"] = 1
        return ready()

    monkeypatch.setattr(turns.condition, "wait_for", wait_for)
    turns.wait("a", 1)
    assert intervals == [waiting.INTERVAL] * waiting.INTERVALS


def test_none_passes_a_barrier_before_all_have_come() -> None:
    barrier, came, late = Barrier(3), [0] * 3, list[int]()

    def walk(thread: int) -> None:
        for number in range(1, 50):
            came[thread] = number
            barrier.meet()
            late.extend(other for other in came if other < number)
            barrier.meet()

    assert finish(barrier, *(functools.partial(walk, thread) for thread in range(3)))
    assert late == []
    assert came == [49] * 3


def test_stopping_a_barrier_wakes_all_who_wait_and_who_come_later() -> None:
    barrier, stopped = Barrier(3), list[int]()

    def walk(thread: int) -> None:
        with pytest.raises(Stopped):
            barrier.meet()
        stopped.append(thread)

    def stop() -> None:
        while barrier.came == 0:
            time.sleep(0.001)
        barrier.stop()

    assert finish(barrier, functools.partial(walk, 0), stop)
    assert finish(barrier, functools.partial(walk, 1))
    assert stopped == [0, 1]


def test_a_barrier_to_which_one_never_comes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "INTERVAL", 0.01)
    with pytest.raises(StuckError, match="for all of 2 threads"):
        Barrier(2).meet()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def fail() -> None:
    raise ArithmeticError("a kernel broke")


@pytest.mark.parametrize("failing", range(3))
def test_the_error_of_one_job_releases_the_others_and_is_raised(
    failing: int, pool: ThreadPoolExecutor
) -> None:
    barrier = Barrier(3)
    jobs: list[Callable[[], object]] = [barrier.meet] * 3
    jobs[failing] = fail
    with pytest.raises(ArithmeticError, match="a kernel broke"):
        run_together(pool, jobs, barrier.stop)


def test_an_interrupt_while_the_others_work_releases_them(pool: ThreadPoolExecutor) -> None:
    barrier = Barrier(2)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_together(pool, [interrupt, barrier.meet], barrier.stop)


def test_jobs_that_have_begun_are_released_when_another_cannot_be_started(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    barrier, submit, begun = Barrier(3), pool.submit, list[Future[object]]()

    def submit_once(job: Callable[..., object], *rest: object) -> Future[object]:
        if begun:
            raise RuntimeError("can't start new thread")
        begun.append(submit(job, *rest))
        return begun[0]

    monkeypatch.setattr(pool, "submit", submit_once)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        run_together(pool, [barrier.meet] * 3, barrier.stop)
    assert begun[0].done()


# Trains and samples with two threads and with one, before and after a fork, and compares the bits.
FORKING = """
import os, signal
from concurrent.futures import Future
import numpy as np
from tinygpt_np import GPT, GPTConfig
from tinygpt_np.compiled.decoder import CompiledDecoder
from tinygpt_np.compiled.engine import CompiledEngine

model = GPT(GPTConfig(vocab_size=11, block_size=16, n_layer=1, n_head=2, n_embd=8))
tokens = np.arange(64 * 16).reshape(64, 16) % 11
engines = [CompiledEngine(model, 64, threads) for threads in (2, 1)]
decoders = [CompiledDecoder(model.config, model.params, 1, threads) for threads in (2, 1)]

def check():
    two, one = (engine.loss_and_grads(tokens, tokens) for engine in engines)
    assert two[0] == one[0] and all((two[1][name] == one[1][name]).all() for name in one[1])
    for i in range(24):
        two, one = (decoder.read(tokens[:1, i % 16 :][:, :1]) for decoder in decoders)
        assert (two == one).all(), i
    assert decoders[0].begun

check()
if not os.fork():
    signal.alarm(60)
    decoders[0].begun[0] = Future()  # As if a thread of the parent had not finished it.
    check()
    os._exit(0)
_, status = os.wait()
assert status == 0, status
check()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_forked_process_has_threads_of_its_own() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr


def test_a_bug_in_the_turns_ends_a_step_with_an_error_and_not_with_a_deadlock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def give_to_the_same_again(turns: Turns, name: str, number: int) -> None:
        with turns.condition:
            turns.next[name] = number
            turns.condition.notify_all()

    monkeypatch.setattr(parallel, "MOST_ROWS", MOST_ROWS)
    model, tokens, targets = generic(CONFIG)
    with CompiledEngine(model, BATCH, 2) as engine:
        engine.loss_and_grads(tokens, targets)
        monkeypatch.setattr(waiting, "INTERVAL", 0.01)
        monkeypatch.setattr(Turns, "done", give_to_the_same_again)
        errors: list[str] = []

        def step() -> None:
            with pytest.raises(StuckError) as raised:
                engine.loss_and_grads(tokens, targets)
            errors.append(str(raised.value))

        assert finish(engine.turns, step)
    assert "to add to the gradient of" in errors[0]
