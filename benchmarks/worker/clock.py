"""The clock: how a step is warmed up and timed, the same for kernels, peers and limits.

A turn starts with samples that do not count, until these no longer become shorter. Then the samples
are taken whose median is the result of the turn. How long a turn lasts follows from the time of a
sample, between bounds (nanobench and torch.utils.benchmark choose it in similar ways).
"""

import mmap
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.ladders import run_all, split

# A sample repeats a step until it takes this long, because reading the clock costs as much as a
# step of microseconds.
SAMPLE_SECONDS = 2e-4
# Samples have settled if the median of the last few is at most this fraction below that of as many
# before. Noise makes some longer, but that is not waited for: no warm-up ends it.
FEW, FALL = 3, 0.02
# A turn has this many samples and takes this long, unless that takes longer than MOST_SECONDS.
SAMPLES, LEAST_SECONDS = 5, 5e-3
# The longest that warming up may take, and that the samples may take, each.
MOST_SECONDS = 0.1
# A step this long on one thread fills the caches itself: a turn is one sample without a warm-up.
# It is found out in the first turn: each sample must be at least this fraction of the one before.
LONG_STEP, STEADY = 0.05, 0.9
# A thread that slept may wake up on the CPU of the thread that woke it, and Linux takes a while to
# move it to a free one. So steps on several threads warm up until these waited for a CPU in less
# than this fraction of the last FEW samples, or for so many seconds.
WAITING, SPREAD_SECONDS = 0.05, 0.03
# Seconds between two checks whether threads sleep, the most checks, and how many must find it.
PAUSE, CHECKS, QUIET = 4e-3, 100, 2
# The folder in which Linux describes the threads of this process.
THREADS = Path("/proc/self/task")


@dataclass
class Timed:
    """A step to be timed.

    before: called before each sample, untimed; returns the arguments of the step. threads: how many
    the step uses. library_threads: whether these belong to a library such as OpenMP or BLAS.
    evict: empties the caches, so that the step finds them cold; None to time it with warm caches.
    repeat: steps per sample. spread, long: whether its threads have a CPU each, and whether a turn
    is one sample; found out in the first turn.
    """

    step: Callable[..., Any]
    before: Callable[[], tuple[Any, ...]] = tuple
    threads: int = 1
    library_threads: bool = False
    evict: Callable[[], Any] | None = None
    repeat: int = 1
    spread: bool = False
    long: bool | None = None

    def sample(self) -> float:
        """Return the seconds per step of one sample."""
        arguments = self.arguments()
        began = time.perf_counter()
        for _ in range(self.repeat):
            self.step(*arguments)
        return (time.perf_counter() - began) / self.repeat

    def arguments(self) -> tuple[Any, ...]:
        """Return the arguments of the steps of a sample, with the caches emptied if asked for."""
        found = self.before()
        if self.evict is not None:
            self.evict()
        return found

    def turn(self) -> dict[str, Any]:
        """Warm up and return the "seconds" per step of each sample, and the fraction "waited"."""
        ran, waits, began, self.repeat = run_times(0), run_times(1), time.perf_counter(), 1
        seconds = [self.sample()]
        if self.threads > 1 and not self.spread:
            self.spread = spread(ran, self.threads)
        if self.long is None:
            self.long = self.threads == 1 and self.stays_long(seconds)
        if not self.long:
            self.warm_up(seconds)
            waits, began = run_times(1), time.perf_counter()
            seconds = self.samples()
        return {
            "seconds": seconds[-1:] if self.long else seconds,
            "waited": waited(waits, time.perf_counter() - began),
        }

    def rest(self) -> None:
        """Leave the CPUs to others: wait until the threads of a library no longer spin."""
        if self.library_threads:
            wait_for_sleep()

    def stays_long(self, found: list[float]) -> bool:
        """Return whether a step is long, also after the first one, which may fetch its memory."""
        while found[-1] >= LONG_STEP:
            found.append(self.sample())
            if found[-1] >= STEADY * found[-2]:
                return found[-1] >= LONG_STEP
        return False

    def warm_up(self, found: list[float]) -> None:
        """Take further samples until they settle, and find how often one repeats the step."""
        began, spent, calm = time.perf_counter(), 0.0, 0
        least = SPREAD_SECONDS if self.threads > 1 else 0.0
        while spent < MOST_SECONDS and not (settled(found) and (spent >= least or calm >= FEW)):
            self.repeat = self.repeats(found[-1])
            waits, before = run_times(1) if least else {}, time.perf_counter()
            found.append(self.sample())
            now = time.perf_counter()
            waiting, spent = waited(waits, now - before), now - began
            calm = calm + 1 if waiting is not None and waiting < WAITING else 0
        self.repeat = self.repeats(statistics.median(found[-FEW:]))

    def repeats(self, seconds: float) -> int:
        """Return how many steps of this length make a sample; with cold caches it is one."""
        return 1 if self.evict else max(1, round(SAMPLE_SECONDS / max(seconds, 1e-7)))

    def samples(self) -> list[float]:
        """Return the samples of a turn."""
        began, found = time.perf_counter(), list[float]()
        while True:
            found.append(self.sample())
            spent = time.perf_counter() - began
            if spent >= (LEAST_SECONDS if len(found) >= SAMPLES else MOST_SECONDS):
                return found


def spread(before: dict[str, int], threads: int) -> bool:
    """Give the threads that have computed since `before` a CPU each, if they are as many.

    Linux may leave threads that wake each other on one CPU for tenths of a second. Nothing is done
    if a step starts threads of its own: these would inherit the only CPU of the main thread.
    """
    ran = {thread: time - before.get(thread, time) for thread, time in run_times(0).items()}
    main = str(os.getpid())
    workers = sorted(ran.keys() - {main}, key=ran.__getitem__, reverse=True)[: threads - 1]
    cpus = sorted(os.sched_getaffinity(0)) if ran else []
    found = len(workers) == threads - 1 < len(cpus) and all(ran[each] for each in workers)
    for thread, cpu in zip((main, *workers), cpus, strict=False) if found else ():
        with suppress(OSError):  # It has ended.
            os.sched_setaffinity(int(thread), {cpu})
    return found


def settled(samples: Sequence[float]) -> bool:
    """Return whether samples have stopped becoming shorter."""
    if len(samples) < 2 * FEW:
        return False
    before, now = statistics.median(samples[-2 * FEW : -FEW]), statistics.median(samples[-FEW:])
    return now >= (1 - FALL) * before


def run_times(column: int) -> dict[str, int]:
    """Return for how many ns each thread ran (0), or was ready to run and had no CPU (1).

    Nothing if that is not known; some kernels do not count it and say 0 everywhere.
    """
    found: dict[str, int] = {}
    ran = False
    with suppress(OSError):
        for thread in os.listdir(THREADS):
            with suppress(FileNotFoundError, ValueError):  # It has ended.
                times = (THREADS / thread / "schedstat").read_text().split()
                found[thread] = int(times[column])
                ran = ran or times[0] != "0"
    return found if ran else {}


def waited(before: dict[str, int], seconds: float) -> float | None:
    """Return the time that threads waited for a CPU since `before`, divided by the seconds."""
    if not before or not (after := run_times(1)):
        return None
    waits = sum(wait - before.get(thread, 0) for thread, wait in after.items())
    return waits * 1e-9 / seconds


def wait_for_sleep() -> None:
    """Wait until threads sleep: those of BLAS and OpenMP spin for up to 50 ms after a step."""
    quiet = 0
    for _ in range(CHECKS):
        before = time.process_time()
        time.sleep(PAUSE)
        quiet = quiet + 1 if time.process_time() - before < PAUSE / 8 else 0
        if quiet == QUIET:
            return


class Eviction:
    """Memory that is overwritten to empty the caches.

    It is twice as large as the last cache, and as the private caches of all CPUs together. It is
    shared with forks of the process.
    """

    def __init__(self) -> None:
        *own, last = machine.caches().values()
        size = 2 * max(last, sum(own) * (os.cpu_count() or 1))
        self.memory = np.frombuffer(mmap.mmap(-1, size // 8 * 8), np.int64)

    @classmethod
    def of(cls, cache: str) -> "Eviction | None":
        """Return what empties the caches if they are to be "cold"."""
        return cls() if cache == "cold" else None

    def step(self, threads: int, pool: ThreadPoolExecutor) -> Callable[[], Any]:
        """Return a step in which threads overwrite a part each, by stores that go to the caches."""
        parts = [self.memory[part] for part in split(self.memory.size, threads)]
        return partial(run_all, pool, [partial(np.add, each, 1, out=each) for each in parts])
