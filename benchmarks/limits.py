"""What bounds a kernel: multiply-adds a second, bytes a second, and what BLAS makes of them.

The peak is a loop of nothing but independent vector FMAs (peak.py). Bandwidth is that of the triad
a = b + s·c (McCalpin's STREAM), in a working set of any size: what fits a cache comes from that
cache. Each thread has arrays of its own. A line that is written is fetched before, unless it is in
the nearest cache; that is counted (STREAM does not). A kernel that writes where it has read is
spared it, as the update a = a + s·b is; a task is held against the faster of the two.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks import machine, peak
from benchmarks.ladders import run_all
from tinygpt_np.compiled.cache import exact
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.compiled.simd.vectors import LANES, fma, load_vector, store_vector

VECTOR = 4 * LANES
FACTOR = np.float32(0.5)
# A step takes about so many FLOPs or bytes of a thread, more than it takes to start one.
FLOPS, BYTES = 5e8, 1 << 26
# Rows and columns of the product that BLAS is given.
BLAS = 1024


@exact
def triad(a: Any, b: Any, c: Any, times: Any) -> None:
    """a = b + c/2, all flat and of whole vectors, so many times."""
    target, first, second = a.ctypes.data, b.ctypes.data, c.ctypes.data
    for _ in range(times):
        for place in range(0, 4 * a.size, VECTOR):
            found = fma(load_vector(second + place), FACTOR, load_vector(first + place))
            store_vector(target + place, found)


@exact
def update(a: Any, b: Any, times: Any) -> None:
    """a += b/2, both flat and of whole vectors, so many times."""
    target, source = a.ctypes.data, b.ctypes.data
    for _ in range(times):
        for place in range(0, 4 * a.size, VECTOR):
            found = fma(load_vector(source + place), FACTOR, load_vector(target + place))
            store_vector(target + place, found)


def make(
    name: str, threads: int, size: int, pool: ThreadPoolExecutor
) -> tuple[Callable[[], Any], float]:
    """A step on so many threads, and its FLOPs ("peak", "BLAS") or bytes ("triad", "update").

    size: bytes of the arrays, all threads' together.
    """
    return MAKERS[name](threads, size, pool)


def make_peak(threads: int, _: int, pool: ThreadPoolExecutor) -> tuple[Callable[[], Any], float]:
    each = 2 * peak.LANES * peak.ACCUMULATORS
    rounds = round(FLOPS / each)
    step = functools.partial(
        run_all, pool, [functools.partial(peak.multiply_add, rounds)] * threads
    )
    return step, float(threads * rounds * each)


def make_triad(
    threads: int, size: int, pool: ThreadPoolExecutor
) -> tuple[Callable[[], Any], float]:
    count = max(size // threads // 12 // LANES, 1) * LANES
    times = max(round(BYTES / (12 * count)), 1)
    # Two arrays are read and one is written; that one is fetched first where it is not at hand.
    moved = 12 if 12 * count <= next(iter(machine.caches().values())) else 16
    arena = Arena()
    tasks: list[Callable[[], Any]] = []
    for _ in range(threads):
        arrays = [arena.zeros(count) for _ in range(3)]
        for number, array in enumerate(arrays):
            array[...] = number
        tasks.append(functools.partial(triad, *arrays, times))
    return functools.partial(run_all, pool, tasks), float(moved * count * times * threads)


def make_update(
    threads: int, size: int, pool: ThreadPoolExecutor
) -> tuple[Callable[[], Any], float]:
    count = max(size // threads // 8 // LANES, 1) * LANES
    times = max(round(BYTES / (12 * count)), 1)
    arena = Arena()
    tasks: list[Callable[[], Any]] = []
    for _ in range(threads):
        arrays = [arena.zeros(count) for _ in range(2)]
        tasks.append(functools.partial(update, *arrays, times))
    return functools.partial(run_all, pool, tasks), 12.0 * count * times * threads


def make_blas(threads: int, _: int, pool: ThreadPoolExecutor) -> tuple[Callable[[], Any], float]:
    """The threads are BLAS's own."""
    a, b, c = (np.full((BLAS, BLAS), value, np.float32) for value in (1, 2, 0))
    return functools.partial(np.dot, a, b, out=c), 2.0 * BLAS**3


MAKERS = {"peak": make_peak, "triad": make_triad, "update": make_update, "BLAS": make_blas}
