"""Reading as many numbers as GPT-2 has weights: no text can be generated faster from memory."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from benchmarks.ladders import run_all
from benchmarks.models import gpt2
from benchmarks.worker.jobs import Job
from benchmarks.worker.limits import filled, read
from tinygpt_np.compiled.simd.vectors import LANES
from tinygpt_np.storage.parameters import param_count


def read_weights(folder: str, prompt: int, count: int, threads: int) -> Job:
    """Return a job that reads them once per generated token."""
    pool = ThreadPoolExecutor(threads)
    size = param_count(gpt2.CONFIG) // (8 * LANES * threads) * 8 * LANES
    tasks = [partial(read, *operands, 1) for operands in filled(threads, 1, size)]

    def step() -> None:
        for _ in range(count):
            run_all(pool, tasks)

    return Job(step)
