"""The barrier and the turns inside kernels: who waits for whom; stopping releases all."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.processes import LIMIT

from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.simd.barrier import SPINS, end_turn, wait_for_all, wait_for_turn
from tinygpt_np.compiled.threads import STOPPED, ParallelRegion


@strict
def rounds(thread: int, threads: int, counter: np.ndarray, values: np.ndarray) -> int:
    """Write a number, wait, and read those of the others; return how many were missing."""
    late = 0
    for number in range(1, values.shape[0]):
        values[number, thread] = number
        wait_for_all(counter.ctypes.data, threads)
        for other in range(threads):
            if values[number, other] != number:
                late += 1
    return late


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_writes_before_the_barrier_are_visible_after_it(threads: int) -> None:
    counter, values = np.zeros(1, np.int64), np.zeros((500, threads), np.int64)

    def run(thread: int) -> int:
        return rounds(thread, threads, counter, values)

    with ThreadPoolExecutor(threads) as pool:
        late = list(pool.map(run, range(threads)))
    assert late == [0] * threads
    assert counter[0] == (499 * threads if threads > 1 else 0)


@pytest.mark.parametrize("stops", [False, True])
def test_a_thread_waits_for_another_or_until_it_is_stopped(stops: bool) -> None:
    counter, values = np.zeros(1, np.int64), np.zeros((2, 2), np.int64)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(rounds, 0, 2, counter, values)
        time.sleep(0.05)
        assert not first.done()
        if stops:
            counter[0] = STOPPED
        else:
            assert rounds(1, 2, counter, values) == 0
        assert first.result(LIMIT) == stops  # The number that was missing.


@strict
def impatient(threads: int, counter: np.ndarray) -> None:
    wait_for_all(counter.ctypes.data, threads, 3 * SPINS)


def test_a_thread_stops_the_barrier_when_another_never_arrives() -> None:
    counter = np.zeros(1, np.int64)
    impatient(2, counter)
    assert counter[0] == STOPPED


@strict
def in_turn(frame: np.ndarray, place: int, log: np.ndarray) -> None:
    """Append this thread's number to a log, whose first number is its length."""
    wait_for_turn(frame.ctypes.data, place)
    log[0] += 1
    log[log[0]] = frame[0]
    end_turn(frame.ctypes.data, place)


def test_turns_come_in_the_order_of_their_numbers_at_each_place() -> None:
    threads, places = 5, 3
    region, logs = ParallelRegion(threads, 2 + places), np.zeros((places, 1 + threads), np.int64)

    def run(number: int) -> None:
        frame = np.array(region.frame(number, 2))  # As the second of two batches.
        for place in range(places):
            in_turn(frame, place, logs[place])

    for numbers in itertools.islice(itertools.permutations(range(threads)), 0, None, 17):
        region.turns[:], logs[:] = 0, 0
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(run, numbers))
        assert logs[:, 1:].tolist() == [[*range(threads)]] * places
        assert region.turns.tolist() == [0, 0, *[threads] * places]


@pytest.mark.parametrize("stops", [False, True])
def test_a_thread_waits_for_its_turn_or_until_the_region_is_stopped(stops: bool) -> None:
    region = ParallelRegion(2, 1)
    frames = np.array([region.frame(number, 0) for number in range(2)])
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(wait_for_turn, frames[1].ctypes.data, 0)
        time.sleep(0.05)
        assert not second.done()
        if stops:
            region.stop()
        else:
            end_turn(frames[0].ctypes.data, 0)
        second.result(LIMIT)


def test_a_thread_stops_the_region_when_its_turn_never_comes() -> None:
    region = ParallelRegion(2, 1)
    frame = np.array([*region.frame(1, 0)[:3], 3 * SPINS])
    wait_for_turn(frame.ctypes.data, 0)
    assert region.counter[0] == STOPPED
