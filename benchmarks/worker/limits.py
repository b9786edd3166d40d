"""Loops that measure the limits of the machine: peak FLOP/s, bandwidth, and a matmul by BLAS.

Bandwidth is that of the triad a = b + s·c (McCalpin's STREAM), of a cache if its arrays fit it.
A cache line that is written is first fetched, unless it is in the L1 cache; that is counted here
(STREAM does not count it). A kernel that writes where it has read saves the fetch, like the update
a = a + s·b; a kernel's limit is the faster of the two.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.ladders import run_all
from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.compiled.simd.vectors import LANES, all_lanes, fma, load_vector, store_vector

VECTOR = 4 * LANES
FACTOR, TERM = np.float32(0.5), np.float32(1e-7)
# FLOPs or bytes of a step per thread, so that it takes longer than starting a thread.
FLOPS, BYTES = 5e8, 1 << 26
# A fused multiply-add takes about four cycles and two can start in each, so eight must be in
# flight; with more accumulators than registers (16 or 32) they would be spilled.
ACCUMULATORS = 12
# Rows and columns of the matmul by BLAS.
BLAS = 1024

# A step, and its FLOPs or bytes.
Limit = tuple[Callable[[], Any], float]


@strict
def multiply_add(rounds: Any, state: Any) -> None:
    """Take `rounds` multiply-adds in each of the accumulators; state (ACCUMULATORS, LANES)."""
    address, factor, term = state.ctypes.data, all_lanes(FACTOR), all_lanes(TERM)
    a, b = load_vector(address), load_vector(address + VECTOR)
    c, d = load_vector(address + 2 * VECTOR), load_vector(address + 3 * VECTOR)
    e, f = load_vector(address + 4 * VECTOR), load_vector(address + 5 * VECTOR)
    g, h = load_vector(address + 6 * VECTOR), load_vector(address + 7 * VECTOR)
    i, j = load_vector(address + 8 * VECTOR), load_vector(address + 9 * VECTOR)
    k, m = load_vector(address + 10 * VECTOR), load_vector(address + 11 * VECTOR)
    for _ in range(rounds):
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


def make(name: str, threads: int, size: int, pool: ThreadPoolExecutor) -> Limit:
    """Return a step on some threads. size: bytes of all arrays of "triad" and "update"."""
    if name == "BLAS":  # Its threads are BLAS's own.
        a, b, c = (np.full((BLAS, BLAS), value, np.float32) for value in (1, 2, 0))
        return functools.partial(np.dot, a, b, out=c), 2.0 * BLAS**3
    steps: list[Callable[[], Any]] = []
    if name == "peak":
        flops = 2 * LANES * ACCUMULATORS
        rounds = round(FLOPS / flops)
        states = np.random.default_rng(0).random((threads, ACCUMULATORS, LANES), np.float32)
        steps += [functools.partial(multiply_add, rounds, state) for state in states]
        amount = rounds * flops
    else:
        function, arrays = (triad, 3) if name == "triad" else (update, 2)
        count = max(size // threads // (4 * arrays) // LANES, 1) * LANES
        times = max(round(BYTES / (12 * count)), 1)
        arena = Arena()
        for _ in range(threads):
            operands = [arena.zeros(count) for _ in range(arrays)]
            for number, array in enumerate(operands):
                array[...] = number
            steps.append(functools.partial(function, *operands, times))
        # Two arrays are read and one is written. What the triad writes is fetched unless in L1.
        fetched = name == "triad" and 12 * count > next(iter(machine.caches().values()))
        amount = (16 if fetched else 12) * count * times
    return functools.partial(run_all, pool, steps), float(threads * amount)
