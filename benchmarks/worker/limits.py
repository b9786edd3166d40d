"""Loops that measure the limits of the machine: peak FLOP/s, bandwidth, and a matmul by BLAS.

Bandwidth is measured with three loops, and a kernel's limit is the fastest of them:

- the triad a = b + s·c (McCalpin's STREAM). A cache line that is written is first fetched, unless
  it is in the L1 cache; that is counted here (STREAM does not count it);
- the update a = a + s·b, which saves the fetch because it writes where it has read;
- the sum of an array, which only reads.
"""

import functools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.ladders import run_all
from benchmarks.worker.clock import Eviction, Timed
from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.compiled.simd.vectors import LANES, all_lanes, fma, load_vector, store_vector
from tinygpt_np.compiled.threads import limited

VECTOR = 4 * LANES
FACTOR, TERM = np.float32(0.5), np.float32(1e-7)
# Steps repeat a loop until they take this many seconds, and twice that on several threads, whose
# start takes some 0.03 ms.
STEP_SECONDS = 1e-3
# A fused multiply-add takes about four cycles and two can start in each, so eight must be in
# flight; with more accumulators than registers (16 or 32) they would be spilled.
ACCUMULATORS = 12
# Rows and columns of the matmul by BLAS.
BLAS = 512

# A step, and its FLOPs or bytes.
Limit = tuple[Callable[[], Any], float]


@strict
def multiply_add(state: Any, times: Any) -> None:
    """Take `times` multiply-adds in each of the accumulators; state (ACCUMULATORS, LANES)."""
    address, factor, term = state.ctypes.data, all_lanes(FACTOR), all_lanes(TERM)
    a, b = load_vector(address), load_vector(address + VECTOR)
    c, d = load_vector(address + 2 * VECTOR), load_vector(address + 3 * VECTOR)
    e, f = load_vector(address + 4 * VECTOR), load_vector(address + 5 * VECTOR)
    g, h = load_vector(address + 6 * VECTOR), load_vector(address + 7 * VECTOR)
    i, j = load_vector(address + 8 * VECTOR), load_vector(address + 9 * VECTOR)
    k, m = load_vector(address + 10 * VECTOR), load_vector(address + 11 * VECTOR)
    for _ in range(times):
        a, b, c = fma(a, factor, term), fma(b, factor, term), fma(c, factor, term)
        d, e, f = fma(d, factor, term), fma(e, factor, term), fma(f, factor, term)
        g, h, i = fma(g, factor, term), fma(h, factor, term), fma(i, factor, term)
        j, k, m = fma(j, factor, term), fma(k, factor, term), fma(m, factor, term)
    for number, value in enumerate((a, b, c, d, e, f, g, h, i, j, k, m)):
        store_vector(address + number * VECTOR, value)


@strict
def triad(a: Any, b: Any, c: Any, times: Any) -> None:
    """Compute a = b + c/2 `times` times; all flat, of whole vectors."""
    target, first, second = a.ctypes.data, b.ctypes.data, c.ctypes.data
    for _ in range(times):
        for offset in range(0, 4 * a.size, VECTOR):
            found = fma(load_vector(second + offset), FACTOR, load_vector(first + offset))
            store_vector(target + offset, found)


@strict
def update(a: Any, b: Any, times: Any) -> None:
    """Compute a += b/2 `times` times; both flat, of whole vectors."""
    target, source = a.ctypes.data, b.ctypes.data
    for _ in range(times):
        for offset in range(0, 4 * a.size, VECTOR):
            found = fma(load_vector(source + offset), FACTOR, load_vector(target + offset))
            store_vector(target + offset, found)


@strict
def read(a: Any, total: Any, times: Any) -> None:
    """Add the vectors of a (M,), M a multiple of 8·LANES, to total (LANES,) `times` times.

    Its halves are read at the same time, because two streams are prefetched faster than one.
    """
    start, half = a.ctypes.data, 2 * a.size
    b = load_vector(total.ctypes.data)
    c = d = e = f = g = h = i = all_lanes(np.float32(0))
    for _ in range(times):
        for at in range(start, start + half, 4 * VECTOR):
            b, c = b + load_vector(at), c + load_vector(at + half)
            d, e = d + load_vector(at + VECTOR), e + load_vector(at + half + VECTOR)
            f, g = f + load_vector(at + 2 * VECTOR), g + load_vector(at + half + 2 * VECTOR)
            h, i = h + load_vector(at + 3 * VECTOR), i + load_vector(at + half + 3 * VECTOR)
    store_vector(total.ctypes.data, ((b + c) + (d + e)) + ((f + g) + (h + i)))


# The loop of each bandwidth, how many arrays it has, and how many reads and writes of one it makes.
BANDWIDTHS = {"triad": (triad, 3, 3), "update": (update, 2, 3), "read": (read, 1, 1)}


def make(name: str, threads: int, size: int, pool: ThreadPoolExecutor, cold: bool = False) -> Limit:
    """Return a step on some threads.

    size: bytes of all arrays of a bandwidth. cold: whether these are not in the caches when a step
    begins, which therefore passes over them only once.
    """
    if name == "BLAS":  # Its threads are BLAS's own.
        a, b, c = (np.full((BLAS, BLAS), value, np.float32) for value in (1, 2, 0))
        return functools.partial(np.dot, a, b, out=c), 2.0 * BLAS**3
    if name == "peak":
        states = np.random.default_rng(0).random((threads, ACCUMULATORS, LANES), np.float32)
        loops = [functools.partial(multiply_add, state) for state in states]
        amount = 2 * LANES * ACCUMULATORS
    else:
        function, arrays, moves = BANDWIDTHS[name]
        count = max(size // threads // (4 * arrays) // (8 * LANES), 1) * 8 * LANES
        loops = [
            functools.partial(function, *operands) for operands in filled(threads, arrays, count)
        ]
        # The triad's output is fetched unless it is in the L1 cache.
        near = not cold and 4 * arrays * count <= next(iter(machine.caches().values()))
        amount = 4 * count * (moves + (name == "triad" and not near))
    once = cold and name != "peak"
    times = 1 if once else repetitions(loops[0], STEP_SECONDS * min(threads, 2))
    steps = [functools.partial(loop, times) for loop in loops]
    return functools.partial(run_all, pool, steps), float(threads * amount * times)


def filled(threads: int, arrays: int, count: int) -> Iterator[list[np.ndarray]]:
    """Yield the arrays of each thread, and a vector for the sum if there is only one."""
    arena = Arena()
    for _ in range(threads):
        operands = [arena.zeros(count) for _ in range(arrays)]
        for number, array in enumerate(operands):
            array[...] = number  # Memory that was never written is one shared page of zeros.
        yield operands if arrays > 1 else [*operands, arena.zeros(LANES)]


def repetitions(loop: Callable[[int], Any], seconds: float) -> int:
    """Return how often to repeat a loop for it to take `seconds`."""
    times, spent = 1, 0.0
    loop(times)  # Compiles.
    while spent < seconds / 4:
        times *= 2
        spent = min(seconds_of(loop, times) for _ in range(3))  # Another process may interrupt it.
    return max(1, round(times * seconds / spent))


def seconds_of(loop: Callable[[int], Any], times: int) -> float:
    """Return how long a loop takes."""
    began = time.perf_counter()
    loop(times)
    return time.perf_counter() - began


class Limits:
    """The limits of the machine in a worker process, which compiles the loops for its forks.

    cache: "hot" or "cold" (see clock.py).
    """

    def __init__(self, cache: str = "hot") -> None:
        self.eviction = Eviction.of(cache)
        self.limit = ExitStack()
        seconds_of(functools.partial(multiply_add, np.zeros((ACCUMULATORS, LANES), np.float32)), 1)
        for function, arrays, _ in BANDWIDTHS.values():
            for operands in filled(1, arrays, 8 * LANES):
                seconds_of(functools.partial(function, *operands), 1)

    def open(self, name: str, threads: int, size: int) -> dict[str, Any]:
        """Open a limit; "amount" is the FLOPs or bytes of a step."""
        pool, library = ThreadPoolExecutor(threads), name == "BLAS" and threads > 1
        self.limit.enter_context(limited(threads))
        step, amount = make(name, threads, size, pool, cold=self.eviction is not None)
        evict = self.eviction and self.eviction.step(threads, pool)
        self.timed = Timed(step, tuple, threads, library, evict)
        return {"amount": amount}

    def turn(self) -> dict[str, Any]:
        """Take a turn; see clock.py."""
        found = self.timed.turn()
        self.timed.rest()
        return found
