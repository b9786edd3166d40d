"""The barrier: nobody goes on before all have come, and whoever gives up lets the others go."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.processes import LIMIT

from tinygpt_np.compiled.cache import exact
from tinygpt_np.compiled.simd.barrier import GIVEN_UP, PATIENCE, wait_for_all


@exact
def rounds(thread: int, threads: int, counter: np.ndarray, values: np.ndarray) -> int:
    """Each writes its number, then reads all others'; how often one of them was not there yet."""
    late = 0
    for number in range(1, values.shape[0]):
        values[number, thread] = number
        wait_for_all(counter.ctypes.data, threads)
        for other in range(threads):
            if values[number, other] != number:
                late += 1
    return late


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_what_was_written_before_is_there_after(threads: int) -> None:
    counter, values = np.zeros(1, np.int64), np.zeros((500, threads), np.int64)

    def run(thread: int) -> int:
        return rounds(thread, threads, counter, values)

    with ThreadPoolExecutor(threads) as pool:
        late = list(pool.map(run, range(threads)))
    assert late == [0] * threads
    assert counter[0] == (499 * threads if threads > 1 else 0)


def test_one_waits_for_the_other() -> None:
    counter, values = np.zeros(1, np.int64), np.zeros((2, 2), np.int64)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(rounds, 0, 2, counter, values)
        time.sleep(0.05)
        assert not first.done()
        assert rounds(1, 2, counter, values) == 0
        assert first.result(LIMIT) == 0


def test_who_gives_up_lets_the_others_go() -> None:
    counter, values = np.zeros(1, np.int64), np.zeros((50, 2), np.int64)
    thread = threading.Thread(target=rounds, args=(0, 2, counter, values))
    thread.start()
    time.sleep(0.05)
    assert thread.is_alive()
    counter[0] = GIVEN_UP
    thread.join(LIMIT)
    assert not thread.is_alive()


@exact
def impatient(threads: int, counter: np.ndarray) -> None:
    wait_for_all(counter.ctypes.data, threads, 3 * PATIENCE)


def test_a_thread_gives_up_when_another_never_comes() -> None:
    counter = np.zeros(1, np.int64)
    impatient(2, counter)
    assert counter[0] == GIVEN_UP
