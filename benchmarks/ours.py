"""Our side: training step, attention, sampling; compiled, or in NumPy where `backend` says so."""

import importlib
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks import works
from benchmarks.worker import WARM_UP_STEPS, Job
from benchmarks.works import Work
from tinygpt_np.model.gpt import GPT
from tinygpt_np.model.language_model import LanguageModel
from tinygpt_np.model.optimizer import AdamW, clip, global_norm

Step = Callable[[np.ndarray, np.ndarray], tuple[float, float]]


def train(work: dict[str, Any], threads: int, backend: str, matmul: str) -> Job:
    """The training step of a work (the fields of a Work)."""
    sizes = Work(**work)
    model = GPT(sizes.config, seed=works.SEED, backend=backend)
    optimizer = AdamW(model.params, works.BETA1, works.BETA2, works.WEIGHT_DECAY)
    if backend == "numpy":
        step = numpy_step(model, optimizer)
    else:
        step = compiled_step(model, optimizer, sizes.batch_size, threads, matmul)
    batches = works.batches(sizes)
    return Job(works.step_flops(sizes), lambda: next(batches), step, list)


def compiled_step(model: GPT, optimizer: AdamW, batch_size: int, threads: int, matmul: str) -> Step:
    """(tokens, targets) -> the loss, and the norm of the gradients before they are clipped."""
    # Not imported above: it brings the compiler, which NumPy's step does without.
    parallel: Any = importlib.import_module("tinygpt_np.compiled.engine")
    engine = parallel.CompiledEngine(model, batch_size, threads=threads, matmul=matmul)
    engine.warm_up()

    def step(tokens: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
        loss, grads = engine.loss_and_grads(tokens, targets)
        norm = engine.norm(grads)
        engine.update(optimizer, grads, norm, works.LEARNING_RATE, works.GRAD_CLIP)
        return loss, norm

    return step


def numpy_step(model: GPT, optimizer: AdamW) -> Step:
    """The same in NumPy; the threads are those of its BLAS."""

    def step(tokens: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
        loss, grads = model.loss_and_grads(tokens, targets)
        norm = global_norm(grads)
        optimizer.update(model.params, clip(grads, norm, works.GRAD_CLIP), works.LEARNING_RATE)
        return loss, norm

    return step


def attention(sizes: dict[str, int], threads: int, backend: str) -> Job:
    """Causal attention, forward and backward, of the sizes of works.attention_inputs.

    Each thread takes a share of the texts; kernels hold no GIL.
    """
    operation = attention_of(backend)
    batch, time, n_head, head_size = (sizes[name] for name in works.ATTENTION)
    qkv, dy = works.attention_inputs(**sizes)
    ends = [batch * part // threads for part in range(threads + 1)]
    shares = [(low, high) for low, high in itertools.pairwise(ends) if low < high]
    pool = ThreadPoolExecutor(len(shares))

    def work(share: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        low, high = share
        rows = slice(low * time, high * time)
        y, saved = operation.forward(qkv[rows], high - low, n_head)
        return y, operation.backward(dy[rows], saved)

    def step() -> list[tuple[np.ndarray, np.ndarray]]:
        return list(pool.map(work, shares))

    def agreement(found: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
        return works.norms([y for y, _ in found], [dqkv for _, dqkv in found])

    flops = works.attention_flops(n_head * head_size, time, batch * time)
    return Job(flops, lambda: (), step, agreement)


def attention_of(backend: str) -> Any:
    rooms = {"numpy": "ops", "numba": "kernels"}
    return importlib.import_module(f"tinygpt_np.{rooms[backend]}.attention")


class Recomputing(GPT):
    """A GPT that reads its whole window anew for each token, as nanoGPT does."""

    def decoder(self, batch: int) -> Callable[[np.ndarray], np.ndarray]:
        return LanguageModel.decoder(self, batch)


def sampler(work: Work, backend: str, cached: bool) -> GPT:
    """A GPT to sample from. cached: whether it keeps keys and values."""
    model = (GPT if cached else Recomputing)(work.config, backend=backend)
    model.params = works.sampling_params(work)
    return model


def sample(work: dict[str, Any], tokens: int, backend: str, cached: bool) -> Job:
    """Sampling texts of so many tokens, from a prompt of one; a step is one token."""
    sizes = Work(**work)
    model, prompt = sampler(sizes, backend, cached), np.zeros(1, np.int64)

    def text() -> Iterator[np.ndarray]:
        return model.generate(prompt, tokens, seed=works.SEED)

    for _ in text():  # Compiles and warms up.
        pass
    stream = works.texts_on_end(text, WARM_UP_STEPS)

    def agreement(_: np.ndarray) -> list[float]:
        return [works.norms([model.decoder(1)(window)])[0] for window in works.windows(sizes)]

    return Job(0.0, lambda: (), lambda: next(stream), agreement)
