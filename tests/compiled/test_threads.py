"""Teams of threads, what stops them, and limits on the threads of BLAS and Numba."""

import functools
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, cast

import numba
import numpy as np
import pytest
import threadpoolctl  # pyright: ignore[reportMissingTypeStubs]
from helpers.processes import printed
from numba.core import config

from tinygpt_np.compiled import threads
from tinygpt_np.compiled.simd.barrier import wait_for_turn
from tinygpt_np.compiled.threads import (
    STOPPED,
    ParallelRegion,
    StoppedError,
    StuckError,
    ThreadTeam,
)

MOST: int = cast(Any, config).NUMBA_NUM_THREADS
get_num_threads: Callable[[], int] = cast(Any, numba).get_num_threads
pools: Callable[[], list[dict[str, Any]]] = threadpoolctl.threadpool_info


@pytest.fixture
def team() -> Iterator[ThreadTeam]:
    team = ThreadTeam(3)
    yield team
    team.close()


def wait_in(region: ParallelRegion) -> None:
    """Wait for a turn that never comes."""
    frame = np.array(region.frame(1, 0))
    wait_for_turn(frame.ctypes.data, 0)
    region.check()


# Teams


@pytest.mark.parametrize(
    ("failing", "error"),
    [(0, KeyboardInterrupt()), *((n, ArithmeticError("a kernel broke")) for n in range(3))],
)
def test_an_error_in_one_thread_releases_the_others_and_is_raised(
    failing: int, error: BaseException, team: ThreadTeam
) -> None:
    region, released = ParallelRegion(3, 1), list[int]()

    def job(thread: int) -> None:
        if thread == failing:
            time.sleep(0.02)  # Until the others wait.
            raise error
        try:
            wait_in(region)
        finally:
            time.sleep(0.02)
            released.append(thread)

    with pytest.raises(type(error)) as caught:
        team.run(job, region)
    assert caught.value is error
    # No thread is still at work when the error is raised.
    assert sorted(released) == [thread for thread in range(3) if thread != failing]
    with pytest.raises(StoppedError):
        region.check()
    assert region.counter[0] == STOPPED


def test_threads_that_have_begun_are_released_when_another_cannot_be_started(
    team: ThreadTeam, monkeypatch: pytest.MonkeyPatch
) -> None:
    region, submit, begun = ParallelRegion(3, 1), team.submit, list[Future[object]]()

    def submit_once(job: Callable[..., object], *rest: object) -> Future[object]:
        if begun:
            raise RuntimeError("can't start new thread")
        begun.append(submit(job, *rest))
        return begun[0]

    monkeypatch.setattr(team, "submit", submit_once)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        team.run(lambda _: wait_in(region), region)
    assert begun[0].done()


def test_a_kernel_that_gave_up_at_its_barrier_is_an_error(team: ThreadTeam) -> None:
    region = ParallelRegion(2)

    def give_up(_: int) -> None:
        region.counter[0] = STOPPED

    with pytest.raises(StuckError, match="for all of 2 threads"):
        team.run(give_up, region)


def test_a_region_without_trouble_passes_its_check() -> None:
    ParallelRegion(2).check()


def test_a_thread_that_gave_up_waiting_for_its_turn_is_an_error_in_all() -> None:
    region = ParallelRegion(2)
    region.counter[0] = STOPPED
    message = "waited minutes for the gradient of an earlier micro-batch, which did not happen"
    with pytest.raises(StuckError, match=message):
        region.check()


def test_each_number_is_taken_once_and_results_are_in_order(team: ThreadTeam) -> None:
    taken = list[int]()
    team.for_each(50, lambda thread, number: taken.append(number), ParallelRegion(3))
    assert sorted(taken) == list(range(50))
    assert team.map([functools.partial(pow, n, 2) for n in range(7)]) == [n**2 for n in range(7)]
    assert team.map([]) == []


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize(("total", "unit"), [(1, 1), (64, 64), (65, 64), (999, 64), (7, 1)])
def test_work_is_split_into_one_part_a_thread_at_multiples_of_a_unit(
    size: int, total: int, unit: int
) -> None:
    found: list[tuple[int, int]] = []
    ThreadTeam(size).split(total, unit, lambda part: found.append((part.start, part.stop)), 1.0)
    found.sort()
    assert [place for a, b in found for place in range(a, b)] == list(range(total))
    assert all(a % unit == 0 for a, _ in found)
    assert len(found) == min(size, -(-total // unit))


def test_work_that_is_done_before_another_thread_wakes_is_not_split(
    monkeypatch: pytest.MonkeyPatch, team: ThreadTeam
) -> None:
    monkeypatch.setattr(threads, "SPLIT_FROM", 1000)
    for flops, expected in ((999.0, 1), (1000.0, 3)):
        parts = list[slice]()
        team.split(64, 1, parts.append, flops)
        assert len(parts) == threads.threads_for(flops, 3) == expected


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
    assert decoders[0].ahead

check()
if not os.fork():
    signal.alarm(60)
    decoders[0].ahead[0] = Future()  # As if a thread of the parent had not finished it.
    check()
    os._exit(0)
_, status = os.wait()
assert status == 0, status
check()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_forked_process_has_threads_of_its_own() -> None:
    printed(FORKING, "-W", "ignore")


# Limits on the threads of BLAS and Numba


def counts() -> set[tuple[str, int]]:
    """Threads of every BLAS, and of Numba."""
    blas = {("blas", pool["num_threads"]) for pool in pools() if pool["user_api"] == "blas"}
    return blas | {("numba", get_num_threads())}


@pytest.mark.skipif(MOST < 2, reason="one core has no threads to limit")
@pytest.mark.parametrize("number", [1, 2])
def test_blas_and_numba_are_limited_and_their_threads_put_back(number: int) -> None:
    before = counts()
    with threads.limited(number):
        assert counts() == {("blas", number), ("numba", number)}
    with threads.limited(MOST + 1):  # Numba has no more.
        assert get_num_threads() == MOST
    with pytest.raises(ZeroDivisionError), threads.limited(number):
        raise ZeroDivisionError
    assert counts() == before


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (0, ValueError, "a positive integer, not 0"),
        (threads.MOST_THREADS + 1, ValueError, "threads must be at most 1024, not 1025"),
        *((each, TypeError, "a positive integer, not") for each in (1.0, True, None)),
    ],
)
def test_other_numbers_of_threads_are_refused(
    number: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        ThreadTeam(number)
    with pytest.raises(kind, match=message), threads.limited(number):
        pass
