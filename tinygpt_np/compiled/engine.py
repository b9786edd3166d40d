"""The compiled training step: a batch in micro-batches, on any number of threads, with equal bits.

A batch is split in a way that depends on its shape alone. Each thread takes the next micro-batch
and runs it forward and backward, so that activations stay in the cache of its core. If there is
only one micro-batch, the threads split its operations instead. README.md describes the design.
"""

import contextlib
import functools
import itertools
import math
from typing import Protocol

import numpy as np

from tinygpt_np.compiled import update
from tinygpt_np.compiled.kernels import adamw, embedding
from tinygpt_np.compiled.matmuls import PACK_FROM, Matmuls
from tinygpt_np.compiled.micro_batch import MicroBatch, Step, buffer_size, draw_masks
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.compiled.threads import ALONE, ParallelRegion, ThreadTeam, limited
from tinygpt_np.compiled.update import Optimizer
from tinygpt_np.config import GPTConfig
from tinygpt_np.machine import usable_cores
from tinygpt_np.storage.parameters import Tensors, param_count, param_shapes

# Rows (tokens) of a micro-batch: at most MOST_ROWS, so that its activations stay in the cache. A
# smaller batch is still split into up to SEVERAL micro-batches, for as many cores, of at least
# FEWEST_ROWS, because each weight is read once per micro-batch.
MOST_ROWS, SEVERAL, FEWEST_ROWS = 512, 4, 128
# Estimate of a thread's scratch memory for matmuls and attention, in float32 numbers.
SCRATCH = 1 << 20


class Model(Protocol):
    """The part of a model that the engine uses, such as that of GPT."""

    config: GPTConfig
    params: Tensors

    def check_targets(self, tokens: np.ndarray, targets: np.ndarray) -> None:
        """Raise ValueError unless tokens and targets fit the model."""
        ...


def micro_batch_count(batch: int, time: int) -> int:
    """Return the number of micro-batches that a batch of this shape is split into."""
    rows = batch * time
    return min(batch, max(-(-rows // MOST_ROWS), min(SEVERAL, rows // FEWEST_ROWS), 1))


def micro_batches(batch: int, time: int) -> list[slice]:
    """Return the sequences of each micro-batch, whose numbers differ by at most one."""
    count = micro_batch_count(batch, time)
    ends = [batch * number // count for number in range(count + 1)]
    return [slice(start, end) for start, end in itertools.pairwise(ends)]


class CompiledEngine:
    """Loss, gradients and updates of a float32 GPT, by compiled kernels on threads.

    The model's parameters are read in place at each step, of batch_size sequences. threads: None
    for one per core. matmul: "numba", or "blas" for comparison. Close an engine, or use it in a
    with statement.
    """

    def __init__(
        self, model: Model, batch_size: int, threads: int | None = None, matmul: str = "numba"
    ) -> None:
        self.model, self.config = model, model.config
        # A copy, so that arrays assigned to model.params later are noticed.
        self.params = trainable(model)
        self.matmul = matmul
        self.micro_batches = micro_batch_count(batch_size, self.config.block_size)
        self.matmuls = Matmuls(self.params, self.config.head_name, self.micro_batches, matmul)
        arena = Arena()
        self.grads = {name: arena.zeros(*param.shape) for name, param in self.params.items()}
        self.dembedded = np.zeros((0, self.config.n_embd), np.float32)
        self.buffers: list[dict[tuple[int, int], MicroBatch]] = []
        self.team = ThreadTeam(usable_cores() if threads is None else threads)
        self.threads = self.team.size

    def __enter__(self) -> "CompiledEngine":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads."""
        self.team.close()

    def warm_up(self, optimizer: Optimizer) -> None:
        """Compile what a step needs, and change nothing."""
        tokens = np.zeros((1, self.config.block_size), np.int64)
        self.loss(tokens, tokens)
        self.loss_and_grads(tokens, tokens, 1 if self.config.dropout else None)
        update.warm_up(optimizer)

    def draw(self, rng: np.random.Generator) -> int | None:
        """Return the key of a step's dropout masks, or None without dropout."""
        return int(rng.integers(2**63)) if self.config.dropout else None

    def masks(self, shape: tuple[int, ...], dropout_key: int | None) -> Tensors:
        """Return the dropout masks that a key stands for, as GPT.forward takes them."""
        batch, time = shape
        return {} if dropout_key is None else draw_masks(self.config, batch, time, dropout_key)

    def loss(self, tokens: np.ndarray, targets: np.ndarray) -> float:
        """tokens, targets (B, T) -> mean cross-entropy in nats, without dropout."""
        return self.run(tokens, targets, self.begin(tokens, targets, None), with_grads=False)

    def loss_and_grads(
        self, tokens: np.ndarray, targets: np.ndarray, dropout_key: int | None = None
    ) -> tuple[float, Tensors]:
        """tokens, targets (B, T) -> loss in nats, gradients like params.

        The gradients belong to the engine, and the next call overwrites them.
        """
        step = self.begin(tokens, targets, dropout_key)
        loss = self.run(tokens, targets, step, with_grads=True)
        dwte, dwpe = self.grads["wte.weight"], self.grads.get("wpe.weight")
        if not self.config.tied_head:  # A tied head has written its part.
            dwte.fill(0)
        embedding.add_rows(ids(tokens), step.dembedded, dwte)
        if dwpe is not None:
            dwpe.fill(0)
            embedding.add_positions(step.dembedded, tokens.shape[1], dwpe)
        return loss, self.grads

    def begin(self, tokens: np.ndarray, targets: np.ndarray, dropout_key: int | None) -> Step:
        """Check a batch, pack the weights, and return what its micro-batches share."""
        self.model.check_targets(tokens, targets)
        if any(self.model.params[name] is not param for name, param in self.params.items()):
            self.params = trainable(self.model)
            self.matmuls = Matmuls(
                self.params, self.config.head_name, self.micro_batches, self.matmul
            )
        self.team.map(self.matmuls.prepare())
        if len(self.dembedded) != targets.size:
            self.dembedded = np.zeros((targets.size, self.config.n_embd), np.float32)
        count = len(micro_batches(*targets.shape))
        return Step(
            params=self.params,
            grads=self.grads,
            dembedded=self.dembedded,
            matmuls=self.matmuls,
            region=ParallelRegion(min(self.team.size, count)),
            scale=1 / int((targets != -1).sum()),
            dropout_key=dropout_key,
            # BLAS chooses the order of its sums by the shapes, so its matmuls are not split.
            team=self.team if count == 1 and self.matmul != "blas" else ALONE,
        )

    def run(self, tokens: np.ndarray, targets: np.ndarray, step: Step, with_grads: bool) -> float:
        """Run all micro-batches; return the mean loss."""
        parts, time = micro_batches(*tokens.shape), tokens.shape[1]
        losses = [0.0] * len(parts)
        while len(self.buffers) < step.region.size:
            self.buffers.append({})

        def work(thread: int, number: int) -> None:
            part = parts[number]
            x, y = ids(tokens[part]), ids(targets[part])
            batch, buffers = part.stop - part.start, self.buffers[thread]
            if (batch, time) not in buffers:
                if len(buffers) > 1:  # Those of two shapes are kept.
                    buffers.clear()
                buffers[batch, time] = MicroBatch(self.config, batch, time)
            micro_batch = buffers[batch, time]
            if with_grads:
                losses[number] = micro_batch.loss_and_grads(x, y, step, number, part.start)
            else:
                losses[number] = micro_batch.loss(x, y, step)

        # Each thread calls BLAS by itself, so BLAS must not start threads of its own.
        with limited(1) if self.matmul == "blas" else contextlib.nullcontext():
            self.team.for_each(len(parts), work, step.region)
        return math.fsum(losses) * step.scale

    def norm(self, grads: Tensors) -> float:
        """Return the norm of all gradients seen as one vector, with sums in a fixed order."""
        pieces = [piece for grad in grads.values() for piece in update.chunks(grad)]
        sums = self.team.map([functools.partial(adamw.sum_of_squares, piece) for piece in pieces])
        return math.sqrt(math.fsum(sums))

    def update(
        self, optimizer: Optimizer, grads: Tensors, norm: float, learning_rate: float,
        grad_clip: float,
    ) -> None:  # fmt: skip
        """Take one optimizer step, in place, with gradients scaled down to a norm of grad_clip."""
        scale = grad_clip / norm if 0 < grad_clip < norm else 1.0
        tasks = update.tasks(optimizer, self.model.params, grads, scale, learning_rate)
        region = ParallelRegion(min(self.team.size, len(tasks)))
        self.team.for_each(len(tasks), lambda _, number: tasks[number](), region)


def trainable(model: Model) -> Tensors:
    """Return a model's parameters. Raise TypeError or ValueError if kernels would misread them."""
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


def ids(tokens: np.ndarray) -> np.ndarray:
    """(B, T) -> (N,) int64."""
    return np.ascontiguousarray(tokens, np.int64).reshape(-1)


def memory_estimate(config: GPTConfig, batch_size: int, threads: int) -> int:
    """Return about how many bytes training takes; threads: 0 for one per core.

    Each parameter has a gradient, two running means and, where weights are packed, two copies. Each
    thread has buffers for two shapes, of training and of evaluation. Python and the compiler take
    about 300 MB.
    """
    micro_batches = micro_batch_count(batch_size, config.block_size)
    rows = -(-batch_size // micro_batches) * config.block_size
    thread = buffer_size(config, rows) + SCRATCH
    copies = 4 + 2 * (micro_batches >= PACK_FROM)
    count = min(threads or usable_cores(), micro_batches)
    # The gradient of the embedded tokens, the tokens and the targets.
    batch = batch_size * config.block_size * (config.n_embd + 4)
    return 300_000_000 + 4 * (copies * param_count(config) + 2 * count * thread + batch)
