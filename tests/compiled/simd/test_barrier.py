"""The barrier inside kernels: none continues before all arrive; stopping it releases all."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.processes import LIMIT

from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.simd.barrier import SPINS, wait_for_all
from tinygpt_np.compiled.threads import STOPPED


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
