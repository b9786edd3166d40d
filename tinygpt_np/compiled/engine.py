"""The compiled training step: a batch in micro-batches, on any number of threads, the same bits.

A batch is split into micro-batches by the configuration alone, never by the number of threads. A
thread takes the next one that nobody has taken and runs it forward and backward, with kernels that
know nothing of threads, so that its activations stay in the cache of its core. Gradients are added
in the order of the micro-batches (see waiting.Turns). Of a batch that is one micro-batch, as a
single text is, all threads share out each operation (see team.py).
"""

import contextlib
import functools
import itertools
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from tinygpt_np.compiled import products
from tinygpt_np.compiled.kernels import adamw, embedding
from tinygpt_np.compiled.micro_batch import MicroBatch, Step, draw_masks
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.compiled.team import ALONE, Team
from tinygpt_np.compiled.threads import check_threads, limited
from tinygpt_np.compiled.waiting import Pool, Turns, run_together
from tinygpt_np.config import GPTConfig
from tinygpt_np.machine import usable_cores
from tinygpt_np.storage.parameters import Tensors, param_count, param_shapes

# A micro-batch has at most about so many rows: with more, its activations are too far from the
# core. Of a smaller batch there are several still, for as many cores, but none with fewer rows than
# these, of which each weight that is read, and each gradient that is added to, would be used too
# little. Tried at 384 channels and 2048 rows, the fastest of 25 steps: 256 rows a micro-batch
# 687 ms, 512 598 ms, 1024 617 ms.
MOST_ROWS, SEVERAL, FEWEST_ROWS = 512, 4, 128
# About what a thread has for products and attention on the way, in numbers.
ROOMS = 1 << 20
# What one thread updates or sums at once, in numbers.
CHUNK = 1 << 18


class Model(Protocol):
    """What a training step reads of a model; GPT is one.

    check_targets raises unless tokens and targets fit the model.
    """

    config: GPTConfig
    params: Tensors

    def check_targets(self, tokens: np.ndarray, targets: np.ndarray) -> None: ...


class Optimizer(Protocol):
    """What an update reads and changes of an optimizer; AdamW is one."""

    beta1: float
    beta2: float
    weight_decay: float
    steps: int
    first: Tensors
    second: Tensors


def micro_batch_count(batch: int, time: int) -> int:
    """Into how many micro-batches a batch of this shape is split."""
    rows = batch * time
    return min(batch, max(-(-rows // MOST_ROWS), min(SEVERAL, rows // FEWEST_ROWS), 1))


def micro_batches(batch: int, time: int) -> list[slice]:
    """Which texts of a batch of this shape make up each micro-batch: evenly many."""
    count = micro_batch_count(batch, time)
    ends = [batch * number // count for number in range(count + 1)]
    return [slice(start, end) for start, end in itertools.pairwise(ends)]


class CompiledEngine:
    """Loss and gradients of a GPT in float32, by compiled kernels on threads.

    model: its parameters are read where they are at each step. batch_size: texts a step.
    threads: how many, or None for one on each core. matmul: "numba", or "blas" for comparison.
    To be closed, or used in a with statement.
    """

    def __init__(
        self, model: Model, batch_size: int, threads: int | None = None, matmul: str = "numba"
    ) -> None:
        self.model, self.config = model, model.config
        # A copy: an array that is assigned anew in the model's is to be noticed.
        self.params = trainable(model)
        self.threads = usable_cores() if threads is None else threads
        self.matmul = matmul
        self.uses = micro_batch_count(batch_size, self.config.block_size)
        self.products = products.make(matmul, self.params, self.uses)
        arena = Arena()
        self.grads = {name: arena.zeros(*param.shape) for name, param in self.params.items()}
        self.dembedded = np.zeros((0, self.config.n_embd), np.float32)
        self.turns = Turns()
        self.workspaces: list[dict[tuple[int, int], MicroBatch]] = []
        check_threads(self.threads)
        self.pool = Pool(self.threads)

    def __enter__(self) -> "CompiledEngine":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the threads."""
        self.pool.shutdown()

    def warm_up(self) -> None:
        """Compiles what a step needs, and changes nothing."""
        tokens = np.zeros((1, self.config.block_size), np.int64)
        self.loss(tokens, tokens)
        self.loss_and_grads(tokens, tokens, 1 if self.config.dropout else None)
        self.norm(self.grads)
        ones = [np.ones(1, np.float32) for _ in range(4)]
        adamw.update(*ones, 1.0, 1e-3, 0.1, 0.9, 0.99, 0.1, 0.01)

    def draw(self, rng: np.random.Generator) -> int | None:
        """The key of a step's dropout masks; None without dropout."""
        return int(rng.integers(2**63)) if self.config.dropout else None

    def masks(self, shape: tuple[int, ...], noise: int | None) -> Tensors:
        """The dropout masks that a key stands for, of a batch of this shape, for model.py."""
        texts, time = shape
        return {} if noise is None else draw_masks(self.config, texts, time, noise)

    def loss(self, tokens: np.ndarray, targets: np.ndarray) -> float:
        """tokens, targets (B, T) -> mean cross-entropy in nats, without dropout."""
        self.model.check_targets(tokens, targets)
        self.prepare()
        step = self.step(targets, None)

        def run(work: MicroBatch, part: slice, number: int) -> float:
            return work.loss(ids(tokens[part]), ids(targets[part]), step)

        return self.over_micro_batches(tokens, run) * step.scale

    def loss_and_grads(
        self, tokens: np.ndarray, targets: np.ndarray, noise: int | None = None
    ) -> tuple[float, Tensors]:
        """tokens, targets (B, T), key of dropout masks -> loss in nats, gradients like params.

        The gradients are the engine's own, and those of the next call.
        """
        self.model.check_targets(tokens, targets)
        self.prepare()
        step = self.step(targets, noise)
        self.turns.restart()

        def run(work: MicroBatch, part: slice, number: int) -> float:
            return work.loss_and_grads(
                ids(tokens[part]), ids(targets[part]), step, number, part.start
            )

        loss = self.over_micro_batches(tokens, run) * step.scale
        # The head's part of wte is there already: both paths count.
        embedding.add_rows(ids(tokens), step.dembedded, self.grads["wte.weight"])
        self.grads["wpe.weight"].fill(0)
        embedding.add_positions(step.dembedded, tokens.shape[1], self.grads["wpe.weight"])
        return loss, self.grads

    def step(self, targets: np.ndarray, noise: int | None) -> Step:
        if len(self.dembedded) != targets.size:
            self.dembedded = np.zeros((targets.size, self.config.n_embd), np.float32)
        scale = 1 / int((targets != -1).sum())
        return Step(
            self.params, self.grads, self.dembedded, self.products, self.turns, scale, noise,
            self.team(targets.shape),
        )  # fmt: skip

    def team(self, shape: tuple[int, ...]) -> Team:
        """Who shares out a micro-batch: all threads, if it is the only one; else each has its own.

        BLAS has all to itself, see products.py.
        """
        alone = len(micro_batches(*shape)) > 1 or self.matmul == "blas" or self.threads == 1
        return ALONE if alone else Team(self.threads, self.share)

    def prepare(self) -> None:
        """Takes over parameters that were assigned anew, and packs the weights."""
        if any(self.model.params[name] is not param for name, param in self.params.items()):
            self.params = trainable(self.model)
            self.products = products.make(self.matmul, self.params, self.uses)
        self.share(self.products.prepare())

    def over_micro_batches(
        self, tokens: np.ndarray, run: Callable[[MicroBatch, slice, int], float]
    ) -> float:
        """The sum, in their order, of what `run` gives for each micro-batch."""
        parts = micro_batches(*tokens.shape)
        results = [0.0] * len(parts)
        numbers = iter(range(len(parts)))
        taking = threading.Lock()

        def work(thread: int) -> None:
            while True:
                with taking:
                    number = next(numbers, None)
                if number is None:
                    return
                part = parts[number]
                workspace = self.workspace(thread, part.stop - part.start, tokens.shape[1])
                results[number] = run(workspace, part, number)

        # BLAS, if it is asked, gets one thread for each of ours; else nothing here knows of it.
        with limited(1) if self.matmul == "blas" else contextlib.nullcontext():
            self.on_threads(work, len(parts))
        return math.fsum(results)

    def workspace(self, thread: int, texts: int, time: int) -> MicroBatch:
        """A thread's buffers for this shape; those for another that it had are given up."""
        mine = self.workspaces[thread]
        if (texts, time) not in mine:
            if len(mine) > 1:
                mine.clear()
            mine[texts, time] = MicroBatch(self.config, texts, time)
        return mine[texts, time]

    def on_threads(self, work: Callable[[int], None], most: int) -> None:
        """Run work(thread) on at most so many threads; raise the first error of them."""
        count = min(self.threads, most)
        while len(self.workspaces) < count:
            self.workspaces.append({})
        jobs = [functools.partial(work, thread) for thread in range(count)]
        run_together(self.pool, jobs, self.turns.stop)

    def share(self, tasks: Sequence[Callable[[], Any]]) -> list[Any]:
        """Does all tasks, in any order, on all threads; their results in order."""
        results: list[Any] = [None] * len(tasks)

        def work(thread: int) -> None:
            for task in range(thread, len(tasks), count):
                results[task] = tasks[task]()

        count = max(min(self.threads, len(tasks)), 1)
        self.on_threads(work, count)
        return results

    def norm(self, grads: Tensors) -> float:
        """The norm of all gradients seen as one vector, summed in float64 in a fixed order."""
        pieces = [piece for grad in grads.values() for piece in chunks(grad)]
        sums = self.share([functools.partial(adamw.sum_of_squares, piece) for piece in pieces])
        return math.sqrt(math.fsum(sums))

    def update(
        self,
        optimizer: Optimizer,
        grads: Tensors,
        norm: float,
        learning_rate: float,
        grad_clip: float,
    ) -> None:
        """One step of AdamW, in place, with the gradients clipped to a norm as they are read."""
        scale = grad_clip / norm if 0 < grad_clip < norm else 1.0
        optimizer.steps += 1
        beta1, beta2 = optimizer.beta1, optimizer.beta2
        corrections = 1 - beta1**optimizer.steps, 1 - beta2**optimizer.steps
        tasks: list[Callable[[], Any]] = []
        for name, param in self.model.params.items():
            decay = optimizer.weight_decay if param.ndim >= 2 else 0.0
            rest = scale, learning_rate, decay, beta1, beta2, *corrections
            tensors = param, grads[name], optimizer.first[name], optimizer.second[name]
            pieces = zip(*map(chunks, tensors), strict=True)
            tasks += [functools.partial(adamw.update, *piece, *rest) for piece in pieces]
        self.share(tasks)


def trainable(model: Model) -> Tensors:
    """The parameters of a model. Raises TypeError, ValueError for what kernels would misread."""
    params = dict(model.params)
    for name, shape in param_shapes(model.config).items():
        param = params[name]
        if param.dtype != np.float32:
            raise TypeError(f"{name} must be float32 to be trained by Numba, not {param.dtype}")
        if param.shape != shape:
            raise ValueError(f"{name} must be {shape}, not {param.shape}")
        if not (param.flags.c_contiguous and param.flags.writeable):
            raise ValueError(f"{name} must be C-contiguous and writeable to be trained by Numba")
    return params


def chunks(tensor: np.ndarray) -> list[np.ndarray]:
    """A tensor, flat, in pieces that lie there as one."""
    values = tensor.reshape(-1)
    return [values[start : start + CHUNK] for start in range(0, values.size, CHUNK)]


def ids(tokens: np.ndarray) -> np.ndarray:
    """(B, T) -> (N,) int64."""
    return np.ascontiguousarray(tokens, np.int64).reshape(-1)


def memory_estimate(config: GPTConfig, batch_size: int, threads: int) -> int:
    """About how many bytes training takes; threads: 0 for one on each core.

    Each parameter has its gradient and two running means, and where weights are packed two copies.
    A thread has the buffers of one micro-batch, and of one of another shape for evaluation. Python
    and the compiler take about 300 MB.
    """
    uses = micro_batch_count(batch_size, config.block_size)
    rows = -(-batch_size // uses) * config.block_size
    C, dropping = config.n_embd, config.dropout > 0
    block = 16 * C + dropping * (2 * C + config.n_head * config.block_size)
    thread = rows * (config.n_layer * block + 13 * C + config.vocab_size) + ROOMS
    copies = 4 + 2 * (uses >= products.PACK_FROM)
    count = min(threads or usable_cores(), uses)
    # The gradient of the embedding's rows, tokens and targets.
    batch = batch_size * config.block_size * (C + 4)
    return 300_000_000 + 4 * (copies * param_count(config) + 2 * count * thread + batch)
