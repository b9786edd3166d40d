"""Reading as many numbers as GPT-2 has weights: no text can be generated faster from memory."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from benchmarks.ladders import run_all
from benchmarks.models import gpt2
from benchmarks.worker.jobs import Job
from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.compiled.simd.vectors import LANES, all_lanes, load_vector, store_vector
from tinygpt_np.storage.parameters import param_count


@strict
def add_all(values: Any, total: Any) -> None:
    """Add values (M,), M a multiple of 4·LANES, lane by lane to total (LANES,)."""
    address, end, step = values.ctypes.data, values.ctypes.data + 4 * values.size, 4 * LANES
    a = b = c = d = all_lanes(np.float32(0))
    while address < end:
        a = a + load_vector(address)
        b = b + load_vector(address + step)
        c = c + load_vector(address + 2 * step)
        d = d + load_vector(address + 3 * step)
        address += 4 * step
    store_vector(total.ctypes.data, (a + b) + (c + d))


def read_weights(folder: str, prompt: int, count: int, threads: int) -> Job:
    """Return a job that reads them once per generated token."""
    arena, pool = Arena(), ThreadPoolExecutor(threads)
    size = param_count(gpt2.CONFIG) // (4 * LANES * threads) * 4 * LANES
    parts = [arena.zeros(size) for _ in range(threads)]
    for part in parts:
        part[...] = 1.0  # Memory that was never written is one shared page of zeros.
    tasks = [partial(add_all, part, np.empty(LANES, np.float32)) for part in parts]

    def step() -> None:
        for _ in range(count):
            run_all(pool, tasks)

    return Job(step)
