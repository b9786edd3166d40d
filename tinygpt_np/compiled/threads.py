"""Teams of threads that work on one call together, and limits on the threads of BLAS and Numba.

A `ThreadTeam` is a pool of threads. Calls that run at the same time belong to a `ParallelRegion`,
in which they wait for each other inside kernels, at a barrier or for their turn. If one of
them fails, the others are released and the error is raised by the call that started the region.
Work is split only along axes that are not reduced, so results do not depend on the number of
threads.
"""

import contextlib
import functools
import itertools
import os
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # pyright: ignore[reportMissingTypeStubs]

from tinygpt_np.machine import MOST_THREADS

# Looks at a counter after which a thread gives up: minutes. Unlike a time, they do not pass while
# the process is suspended.
MOST_SPINS = 1 << 37
# FLOPs of the least work that is split, 0.1 to 0.2 ms of one thread: another takes up to 0.1 ms to
# wake.
SPLIT_FROM = 10_000_000
# The value of a region's counter after it has been stopped.
STOPPED = 1 << 62


class StoppedError(RuntimeError):
    """Raised in waiting threads when another thread of the region has failed."""


class StuckError(RuntimeError):
    """Raised in a thread that has waited too long for another."""

    def __init__(self, event: str) -> None:
        super().__init__(
            f"waited minutes for {event}, which did not happen; this is a bug in tinygpt"
        )


class ParallelRegion:
    """Threads that run at the same time, wait for each other and are stopped together.

    places: how many places there are at which they take turns; see simd/barrier.py.
    """

    def __init__(self, size: int, places: int = 0) -> None:
        self.size = size
        self.stopped = False
        # Counts arrivals at the barrier inside kernels.
        self.counter = np.zeros(1, np.int64)
        # Counts the turns that have ended at each place.
        self.turns = np.zeros(places, np.int64)

    def frame(self, number: int, first: int) -> tuple[int, int, int, int]:
        """Return what kernels read of a thread's turn, at places that are counted from `first`."""
        addresses = self.turns[first:].ctypes.data, self.counter.ctypes.data
        return number, *addresses, MOST_SPINS

    def check(self) -> None:
        """Raise StoppedError if another thread has failed, StuckError if one gave up waiting."""
        if self.stopped:
            raise StoppedError("another thread has failed")
        if self.counter[0] >= STOPPED:
            raise StuckError("the gradient of an earlier micro-batch")

    def stop(self) -> None:
        """Release all threads that wait, now and later."""
        self.stopped = True
        self.counter[0] = STOPPED


def ended(others: Sequence[Future[None]]) -> list[BaseException]:
    """Wait until all calls have ended; return their errors. futures.wait takes longer."""
    return [error for other in others if (error := other.exception())]


class ThreadTeam:
    """A pool of threads, one of which is the thread that calls it.

    A forked process gets threads of its own: a fork copies the pool without its threads, and tasks
    given to the copy would never run.
    """

    def __init__(self, size: int) -> None:
        check_threads(size)
        self.size, self.process = size, os.getpid()
        self.executor = ThreadPoolExecutor(max(size - 1, 1))

    def renew(self) -> bool:
        """Replace the threads of a parent process. Return whether there were any to replace."""
        forked = self.process != os.getpid()
        if forked:
            self.__init__(self.size)
        return forked

    def submit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        """Call a function on another thread of the team."""
        self.renew()
        return self.executor.submit(function, *args, **kwargs)

    def close(self, wait: bool = True) -> None:
        """End the threads; wait: after the tasks they have been given, else after those begun."""
        self.executor.shutdown(wait=wait, cancel_futures=not wait)

    def run(self, job: Callable[[int], object], region: ParallelRegion) -> None:
        """Call job(0), …, job(region.size - 1) at the same time; return when all have ended.

        job(0) runs on the calling thread. If a call raises, or the calling thread is interrupted,
        the region is stopped, and the error is raised when all calls have ended.
        """
        if region.size == 1:
            job(0)
            return

        def guarded(thread: int) -> None:
            try:
                job(thread)
            except BaseException:
                region.stop()
                raise

        others: list[Future[None]] = []
        errors: list[BaseException] = []
        try:
            for thread in range(1, region.size):
                others.append(self.submit(guarded, thread))  # noqa: PERF401 - keep those started.
            job(0)
            ended(others)
        except BaseException as error:
            errors.append(error)
            region.stop()
            ended(others)
        errors += ended(others)
        if errors:
            causes = (error for error in errors if not isinstance(error, StoppedError))
            raise next(causes, errors[0])
        if region.counter[0] >= STOPPED:
            raise StuckError(f"all of {region.size} threads")

    def for_each(
        self, total: int, job: Callable[[int, int], object], region: ParallelRegion,
        begin: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        """Call job(thread, number) for each number below total, in ascending order.

        A thread takes the next number as soon as it is free. Before that, each calls begin().
        """
        numbers, lock = iter(range(total)), threading.Lock()

        def work(thread: int) -> None:
            begin()
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                job(thread, number)

        self.run(work, region)

    def map(self, tasks: Sequence[Callable[[], Any]]) -> list[Any]:
        """Run tasks that do not depend on each other; return their results in order."""
        count = max(min(self.size, len(tasks)), 1)
        results: list[Any] = [None] * len(tasks)

        def work(thread: int) -> None:
            for number in range(thread, len(tasks), count):
                results[number] = tasks[number]()

        self.run(work, ParallelRegion(count))
        return results

    def call(self, kernel: Callable[..., Any], *args: Any) -> None:
        """Call a kernel on this thread; a Recorder would record the call."""
        kernel(*args)

    def split(self, total: int, unit: int, job: Callable[[slice], object], flops: float) -> None:
        """Call job with one slice of range(total) per thread; slices begin at multiples of unit.

        flops: about how many all of them take; one thread does what is too short to be split.
        """
        threads = threads_for(flops, self.size)
        if threads == 1 or total <= unit:
            job(slice(0, total))
            return
        units = -(-total // unit)
        ends = [min(units * part // threads * unit, total) for part in range(threads + 1)]
        slices = [slice(a, b) for a, b in itertools.pairwise(ends) if a < b]
        self.map([functools.partial(job, part) for part in slices])


def threads_for(flops: float, most: int) -> int:
    """Return how many threads work of about so many FLOPs is split between: 1 or `most`."""
    return most if flops >= SPLIT_FROM else 1


def check_threads(threads: int) -> None:
    """Raise TypeError or ValueError unless this is a number of threads that can be started."""
    if not isinstance(threads, int) or isinstance(threads, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"threads must be a positive integer, not {type(threads).__name__}")
    if threads < 1:
        raise ValueError(f"threads must be a positive integer, not {threads}")
    if threads > MOST_THREADS:
        raise ValueError(f"threads must be at most {MOST_THREADS}, not {threads}")


@contextlib.contextmanager
def limited(threads: int) -> Generator[None]:
    """Limit the threads of BLAS and Numba inside a with statement.

    Numba's are limited if it has been imported, for the calling thread, and never to more than
    NUMBA_NUM_THREADS. Raise TypeError or ValueError unless `threads` is a positive integer.
    """
    check_threads(threads)
    numba: Any = sys.modules.get("numba")
    before = numba.get_num_threads() if numba else 0
    with threadpool_limits(threads, user_api="blas"):
        try:
            if numba:
                numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
            yield
        finally:
            if numba:
                numba.set_num_threads(before)


# A team without further threads, for work that is not split.
ALONE = ThreadTeam(1)
