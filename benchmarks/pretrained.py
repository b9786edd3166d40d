"""GPT-2 124M from a checkpoint, beside transformers: tokens a second, and the first after a prompt.

Both sides read the same folder, with weights as GPT-2 begins, take the likeliest token each time,
and must write the same. Both keep keys and values. Beside them all weights are read once for each
token, on as many threads, and nothing is done with them: no text can be written faster from memory.
A text is asked for whole, as a user asks; so what it takes to begin one counts too.
"""

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import works
from benchmarks.contest import Contest, run
from benchmarks.worker import Job
from benchmarks.workers import Side
from tinygpt_np.compiled.cache import exact
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.compiled.simd.vectors import LANES, all_lanes, load_vector, store_vector
from tinygpt_np.config import GPTConfig
from tinygpt_np.model.gpt import GPT
from tinygpt_np.storage.parameters import param_count

CONFIG = GPTConfig(vocab_size=50257, block_size=1024, n_layer=12, n_head=12, n_embd=768, bias=True)
# Tokens of the prompt, and tokens to be made.
TEXTS = {"48 tokens after 16": (16, 48), "the first token after 512": (512, 1)}
ROUNDS = 7
BOUND = "weights read once"


def contests(folder: Path, threads: int, rounds: int | None, peer: bool) -> list[Contest]:
    """folder: of the checkpoint. peer: whether transformers is there to be measured."""
    found: list[Contest] = []
    for name, (prompt, count) in TEXTS.items():
        options = {"folder": str(folder), "prompt": prompt, "count": count, "threads": threads}
        sides = [Side("ours", "benchmarks.pretrained:generate", options)]
        if peer:
            sides.append(Side("transformers", "benchmarks.peers.hugging_face:generate", options))
        if count > 1:
            sides.append(Side(BOUND, "benchmarks.pretrained:read_weights", options))
        found.append(Contest(name, dict(options), sides, rounds or ROUNDS, count))
    return found


def measure(threads: int, rounds: int | None, peer: bool, path: Path | None) -> bool:
    """Writes the checkpoint, and runs the contests; whether they came to their end."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "gpt2")
        GPT(CONFIG, seed=works.SEED).save_pretrained(folder)
        return run("pretrained", contests(folder, threads, rounds, peer), threads, {}, path)


def generate(folder: str, prompt: int, count: int, threads: int) -> Job:
    """Our side; a step is a text. Threads are those that this process may use."""
    model, given = GPT.from_pretrained(folder, backend="numba"), prompt_of(prompt)

    def step() -> list[int]:
        return [int(token) for token in model.generate(given, count, temperature=0)]

    def agreement(made: list[int]) -> list[float]:
        return [float(token) for token in made]

    return Job(flops(prompt, count), lambda: (), step, agreement)


def prompt_of(count: int) -> np.ndarray:
    """(T,) the same on every side."""
    return np.random.default_rng(works.SEED).integers(0, CONFIG.vocab_size, count)


def flops(prompt: int, count: int) -> float:
    """Of the products with weights: blocks for each token read, the head for each one made."""
    C = CONFIG.n_embd
    read = prompt + count - 1
    return 2.0 * (read * CONFIG.n_layer * 12 * C * C + count * CONFIG.vocab_size * C)


@exact
def read(values: Any, total: Any) -> None:
    """Adds all values (M,), of 4·LANES at a time, to total (LANES,)."""
    place, end, step = values.ctypes.data, values.ctypes.data + 4 * values.size, 4 * LANES
    a = b = c = d = all_lanes(np.float32(0))
    while place < end:
        a = a + load_vector(place)
        b = b + load_vector(place + step)
        c = c + load_vector(place + 2 * step)
        d = d + load_vector(place + 3 * step)
        place += 4 * step
    store_vector(total.ctypes.data, (a + b) + (c + d))


def read_weights(folder: str, prompt: int, count: int, threads: int) -> Job:
    """Reads as many numbers as there are weights, once for each token that is made."""
    arena, pool = Arena(), ThreadPoolExecutor(threads)
    size = param_count(CONFIG) // (4 * LANES * threads) * 4 * LANES
    parts = [arena.zeros(size) for _ in range(threads)]
    tasks: list[Callable[[], Any]] = []
    for part in parts:
        part[...] = 1.0  # Zeros that nobody wrote are one page of memory only.
        total = np.empty(LANES, np.float32)
        tasks.append(lambda part=part, total=total: read(part, total))

    def step() -> None:
        for _ in range(count):
            for done in [pool.submit(task) for task in tasks]:
                done.result()

    def agreement(_: None) -> list[float]:
        return []

    return Job(0.0, lambda: (), step, agreement)
