"""Our side: training step, attention, sampling and GPT-2 generation, compiled or in NumPy."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.ladders import split
from benchmarks.models import gpt2, workloads
from benchmarks.models.workloads import Workload
from benchmarks.worker.jobs import WARM_UP_STEPS, Job
from benchmarks.worker.training import Run
from tinygpt_np import backend as backends
from tinygpt_np.config import TrainConfig
from tinygpt_np.model import optimizer as optim
from tinygpt_np.model.gpt import GPT
from tinygpt_np.model.language_model import LanguageModel
from tinygpt_np.model.optimizer import AdamW
from tinygpt_np.text import dataset
from tinygpt_np.training.engine import make
from tinygpt_np.training.metrics import Metrics
from tinygpt_np.training.trainer import Trainer

# The characters of tiny Shakespeare.
VOCAB = 65


def train(workload: dict[str, Any], threads: int, backend: str, matmul: str) -> Job:
    """Return the training step: it gives the loss, and the norm of gradients before clipping."""
    sizes = Workload(**workload)
    model = GPT(sizes.config, seed=workloads.SEED, backend=backend)
    optimizer = AdamW(model.params, workloads.BETA1, workloads.BETA2, workloads.WEIGHT_DECAY)
    options: Any = {"backend": backend, "matmul": matmul}
    engine = make(model, TrainConfig(batch_size=sizes.batch_size, threads=threads, **options))
    engine.warm_up(optimizer)
    batches = workloads.batches(sizes)

    def step(tokens: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
        loss, grads = engine.loss_and_grads(tokens, targets)
        norm = engine.norm(grads)
        engine.update(optimizer, grads, norm, workloads.LEARNING_RATE, workloads.GRAD_CLIP)
        return loss, norm

    return Job(step, workloads.step_flops(sizes), lambda: next(batches), list)


class Unrecorded(Trainer):
    """A training run that writes no files."""

    def record(self, row: Metrics) -> Metrics:
        """Return the metrics of a step."""
        return row


def run(config: dict[str, Any]) -> Run:
    """Return a training run as `tinygpt train` takes it."""
    settings = TrainConfig(**config)
    trainer = Unrecorded(Path("unwritten"), settings, dataset.load(settings))
    trainer.warm_up()

    def train(steps: int) -> None:
        for _ in range(steps):
            trainer.advance()

    return Run(settings.max_iters, train, trainer.evaluate)


def step_by(settings: dict[str, Any], optimizer: str) -> Job:
    """Return the step of a training run by an optimizer, or without an update if it is ""."""
    config = replace(TrainConfig(**settings), optimizer=cast(Any, optimizer or "adamw"))
    model = GPT(config.gpt(VOCAB), config.seed, backend=config.backend)
    chosen, engine = optim.make(config, model.params), make(model, config)
    engine.warm_up(chosen)
    rng = np.random.default_rng(workloads.SEED)
    shape = 2, config.sequences_per_step, config.block_size

    def step(tokens: np.ndarray, targets: np.ndarray) -> None:
        _, grads = engine.loss_and_grads(tokens, targets, engine.draw(rng))
        norm = engine.norm(grads)
        if optimizer:
            engine.update(chosen, grads, norm, config.learning_rate, config.grad_clip)

    return Job(step, draw=lambda: (*rng.integers(0, VOCAB, shape),))


def attention(sizes: dict[str, int], threads: int, backend: str) -> Job:
    """Return causal attention, forward and backward; sequences are split between the threads."""
    operation = backends.load(backend).attention
    batch, time, n_head, n_kv_head, head_size = sizes.values()
    qkv, dy = workloads.attention_inputs(**sizes)
    parts = split(batch, threads)
    pool = ThreadPoolExecutor(len(parts))

    def both(part: slice) -> tuple[np.ndarray, np.ndarray]:
        rows = slice(part.start * time, part.stop * time)
        count = part.stop - part.start
        y, saved = operation.forward(qkv[rows], count, n_head, None, n_kv_head)
        return y, operation.backward(dy[rows], saved)

    def step() -> list[tuple[np.ndarray, np.ndarray]]:
        return list(pool.map(both, parts))

    def agreement(found: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
        return workloads.norms([y for y, _ in found], [dqkv for _, dqkv in found])

    flops = workloads.attention_flops(n_head * head_size, time, batch * time)
    return Job(step, flops, agreement=agreement)


class Recomputing(GPT):
    """A GPT that reads its whole context again for each token, as nanoGPT does."""

    def decoder(self, batch: int) -> Callable[[np.ndarray], np.ndarray]:
        """Return the decoder without a cache of keys and values."""
        return LanguageModel.decoder(self, batch)


def sample(workload: dict[str, Any], tokens: int, backend: str, cached: bool) -> Job:
    """Return a job that samples sequences after a prompt of one token, token by token."""
    sizes, prompt = Workload(**workload), np.zeros(1, np.int64)
    model = (GPT if cached else Recomputing)(sizes.config, backend=backend)
    model.params = workloads.sampling_params(sizes)

    def generate() -> Iterator[np.ndarray]:
        return model.generate(prompt, tokens, seed=workloads.SEED)

    for _ in generate():  # Compiles and warms up.
        pass
    stream = workloads.endless(generate, WARM_UP_STEPS)

    def agreement(_: np.ndarray) -> list[float]:
        return workloads.norms(*([model.decoder(1)(each)] for each in workloads.sequences(sizes)))

    return Job(lambda: next(stream), agreement=agreement)


def generate(folder: str, prompt: int, count: int, threads: int) -> Job:
    """Return a job that generates `count` tokens greedily, on the threads of its process."""
    model, given = GPT.from_pretrained(folder, backend="numba"), gpt2.prompt_of(prompt)

    def step() -> list[int]:
        return [int(token) for token in model.generate(given, count, temperature=0)]

    return Job(step, gpt2.flops(prompt, count), agreement=list)
