"""GPT-2 124M generation: the checkpoint's sizes, the prompt, and reading all weights as a bound."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.harness.jobs import Job
from benchmarks.models.workloads import SEED
from tinygpt_np.config import GPTConfig

CONFIG = GPTConfig(vocab_size=50257, block_size=1024, n_layer=12, n_head=12, n_embd=768, bias=True)
# Tokens of the prompt, and tokens to generate.
LENGTHS = {"48 tokens after a prompt of 16": (16, 48), "1 token after a prompt of 512": (512, 1)}


def prompt_of(count: int) -> np.ndarray:
    """Return the prompt (T,), the same for every candidate."""
    return np.random.default_rng(SEED).integers(0, CONFIG.vocab_size, count)


def flops(prompt: int, count: int) -> float:
    """Return the FLOPs of the products with weights: blocks per token read, head per token made."""
    C = CONFIG.n_embd
    read = prompt + count - 1
    return 2.0 * (read * CONFIG.n_layer * 12 * C * C + count * CONFIG.vocab_size * C)


def as_floats(tokens: Sequence[int]) -> list[float]:
    """Return tokens as numbers to agree on."""
    return [float(token) for token in tokens]


def read_weights(folder: str, prompt: int, count: int, threads: int) -> Job:
    """Return a job that reads as many numbers as there are weights, once per generated token.

    No text can be generated faster from memory.
    """
    # Imported here because they import the compiler, which transformers' process does not need.
    from benchmarks.models.reading import LANES, add_all
    from tinygpt_np.compiled.simd.memory import Arena
    from tinygpt_np.storage.parameters import param_count

    arena, pool = Arena(), ThreadPoolExecutor(threads)
    size = param_count(CONFIG) // (4 * LANES * threads) * 4 * LANES
    tasks: list[Callable[[], Any]] = []
    for _ in range(threads):
        part, total = arena.zeros(size), np.empty(LANES, np.float32)
        part[...] = 1.0  # Memory that was never written is one shared page of zeros.
        tasks.append(lambda part=part, total=total: add_all(part, total))

    def step() -> None:
        for _ in range(count):
            for running in [pool.submit(task) for task in tasks]:
                running.result()

    return Job(step)
