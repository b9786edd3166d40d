"""The compiled training step: a batch in micro-batches, on any number of threads, with equal bits.

A batch is split in a way that depends on its shape alone. Each thread takes the next micro-batch
and runs it forward and backward, so that activations stay in the cache of its core. If there is
only one micro-batch, the threads split its operations instead. README.md describes the design.
"""

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from tinygpt_np.compiled import update
from tinygpt_np.compiled.cache import without_collection
from tinygpt_np.compiled.kernels import embedding
from tinygpt_np.compiled.matmuls import PACK_FROM, Matmuls
from tinygpt_np.compiled.micro_batch import MicroBatch, Step, buffer_size, draw_masks, places
from tinygpt_np.compiled.recording import Recordings
from tinygpt_np.compiled.simd.barrier import wait_for_all
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
# Several batches of a step run at the same time, at most MOST, if otherwise more than this share of
# the threads' time would be lost; splitting a single micro-batch loses about SPLIT of it.
IDLE, SPLIT, MOST = 0.1, 0.15, 4

# Recordings of the norm and the update that are kept.
MOST_RECORDINGS = 4
# Reading a number for the norm, and updating one, take about as long as so many FLOPs.
NORM, UPDATE = 10, 40

# Tokens and targets of a batch, (B, T) each.
Batch = tuple[np.ndarray, np.ndarray]


class Model(Protocol):
    """The part of a model that the engine uses, such as that of GPT."""

    config: GPTConfig
    params: Tensors

    def check_targets(self, tokens: np.ndarray, targets: np.ndarray) -> None:
        """Raise ValueError unless tokens and targets fit the model."""
        ...


class Part(NamedTuple):
    """A micro-batch to run: its number and sequences in the batch of a step."""

    step: Step
    number: int
    sequences: slice
    tokens: np.ndarray
    targets: np.ndarray


def micro_batch_count(batch: int, time: int) -> int:
    """Return the number of micro-batches that a batch of this shape is split into."""
    rows = batch * time
    return min(batch, max(-(-rows // MOST_ROWS), min(SEVERAL, rows // FEWEST_ROWS), 1))


def micro_batches(batch: int, time: int) -> list[slice]:
    """Return the sequences of each micro-batch, whose numbers differ by at most one."""
    count = micro_batch_count(batch, time)
    ends = [batch * number // count for number in range(count + 1)]
    return [slice(start, end) for start, end in itertools.pairwise(ends)]


def at_once(micro_batches: int, threads: int, batches: int) -> int:
    """Return how many of `batches` batches of some micro-batches run at the same time.

    Each needs memory for a gradient, so no more than are needed to keep the threads busy.
    """

    def idle(count: int) -> float:
        parts = count * micro_batches
        if parts == 1 and threads > 1:
            return SPLIT
        return 1 - parts / (-(-parts // threads) * threads)

    return min(range(1, min(batches, MOST) + 1), key=lambda count: max(idle(count), IDLE))


class CompiledEngine:
    """Loss, gradients and updates of a float32 GPT, by compiled kernels on threads.

    The model's parameters are read in place at each step, of `batches` batches of batch_size
    sequences. threads: None for one per core. matmul: "numba", or "blas" for comparison. Close an
    engine, or use it in a with statement.
    """

    def __init__(
        self, model: Model, batch_size: int, threads: int | None = None, matmul: str = "numba",
        batches: int = 1,
    ) -> None:  # fmt: skip
        self.model, self.config = model, model.config
        # A copy, so that arrays assigned to model.params later are noticed.
        self.params = trainable(model)
        self.matmul = matmul
        self.micro_batches = micro_batch_count(batch_size, self.config.block_size)
        self.uses = batches * self.micro_batches
        self.matmuls = Matmuls(self.params, self.config.head_name, self.uses, matmul)
        self.is_packed = False
        self.recordings = Recordings(MOST_RECORDINGS)
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

    @functools.cached_property
    def grads(self) -> Tensors:
        """The gradients that loss_and_grads returns."""
        arena = Arena()
        return {name: arena.zeros(*param.shape) for name, param in self.params.items()}

    @without_collection()
    def warm_up(self, optimizer: Optimizer) -> None:
        """Compile what a step needs, and change nothing."""
        tokens = np.zeros((1, min(2, self.config.block_size)), np.int64)
        self.loss(tokens, tokens)
        self.prepare()
        # Their memory is given back.
        grads = {name: np.zeros_like(param) for name, param in self.params.items()}
        key = 1 if self.config.dropout else None
        for count in (1, 2):  # Split between threads, and recorded.
            self.accumulate([(tokens, tokens)] * count, [grads] * count, tokens.size, key)
        self.norm(grads)
        update.warm_up(optimizer)
        self.forget()

    def forget(self) -> None:
        """Give back buffers and recordings, which keep the parameters and gradients they use."""
        self.buffers.clear()
        self.recordings = Recordings(MOST_RECORDINGS)

    def draw(self, rng: np.random.Generator) -> int | None:
        """Return the key of a step's dropout masks, or None without dropout."""
        return int(rng.integers(2**63)) if self.config.dropout else None

    def masks(self, shape: tuple[int, ...], dropout_key: int | None) -> Tensors:
        """Return the dropout masks that a key stands for, as GPT.forward takes them."""
        batch, time = shape
        return {} if dropout_key is None else draw_masks(self.config, batch, time, dropout_key)

    def loss(self, tokens: np.ndarray, targets: np.ndarray) -> float:
        """tokens, targets (B, T) -> mean cross-entropy in nats, without dropout."""
        self.model.check_targets(tokens, targets)
        total = counted(targets)
        self.prepare()
        return self.mean(self.run(self.parts([(tokens, targets)], [{}], total, None)), total)

    def loss_and_grads(
        self, tokens: np.ndarray, targets: np.ndarray, dropout_key: int | None = None
    ) -> tuple[float, Tensors]:
        """tokens, targets (B, T) -> loss in nats, gradients like params.

        The gradients belong to the engine, and the next call overwrites them.
        """
        total = counted(targets)  # `accumulate` checks them.
        self.prepare()
        losses = self.accumulate([(tokens, targets)], [self.grads], total, dropout_key)
        return self.mean(losses, total), self.grads

    def prepare(self) -> None:
        """Notice parameters that have been replaced, and let the next run pack the weights."""
        if any(self.model.params[name] is not param for name, param in self.params.items()):
            self.params = trainable(self.model)
            self.matmuls = Matmuls(self.params, self.config.head_name, self.uses, self.matmul)
            self.forget()
        self.is_packed = False

    def at_once(self, batches: int) -> int:
        """Return how many of `batches` batches run at the same time, to use all threads."""
        return at_once(self.micro_batches, self.threads, batches)

    def accumulate(
        self,
        batches: Sequence[Batch],
        grads: Sequence[Tensors],
        total: int,
        dropout_key: int | None,
        first: int = 0,
        done: Callable[[str], None] | None = None,
    ) -> list[float]:
        """Compute the gradients of several batches at the same time, each in its own arrays.

        The gradient of a batch is that of its part of the mean loss of the step.

        Parameters
        ----------
        batches
            Tokens and targets of each, (B, T).
        grads
            Arrays like params for the gradient of each batch.
        total
            The number of targets that count in all batches of the step.
        dropout_key
            The step's result of `draw`.
        first
            The number of the first sequence in the step.
        done
            Called with the name of a parameter, by any thread, when its gradient for one of the
            batches is complete.

        Returns
        -------
        list of float
            The sum of the losses of each micro-batch.
        """
        for tokens, targets in batches:
            if not total or counted(targets):  # Other batches of the step may have targets.
                self.model.check_targets(tokens, targets)
        losses = self.run(self.parts(batches, grads, total, dropout_key, first, done))
        start = 0
        for (tokens, _), into in zip(batches, grads, strict=True):
            dembedded = self.dembedded[start : start + tokens.size]
            start += tokens.size
            dwte, dwpe = into["wte.weight"], into.get("wpe.weight")
            if not self.config.tied_head:  # A tied head has written its part.
                dwte.fill(0)
            embedding.add_rows(ids(tokens), dembedded, dwte)
            if dwpe is not None:
                dwpe.fill(0)
                positions = np.arange(tokens.size) % tokens.shape[1]
                embedding.add_rows(positions, dembedded, dwpe)
            for name in ("wte.weight", "wpe.weight"):
                if done and name in into:
                    done(name)
        return losses

    def run(self, parts: Sequence[Part]) -> list[float]:
        """Run micro-batches; return the sum of the losses of each."""
        region = parts[0].step.region
        losses = [0.0] * len(parts)
        while len(self.buffers) < region.size:
            self.buffers.append({})
        pack = self.matmuls.packing.shared()

        def begin() -> None:
            if not self.is_packed:
                pack()
                wait_for_all(region.counter.ctypes.data, region.size)
                region.check()

        def work(thread: int, number: int) -> None:
            part = parts[number]
            x, y, (batch, time) = part.tokens, part.targets, part.tokens.shape
            buffers, first = self.buffers[thread], part.sequences.start
            if (batch, time) not in buffers:
                if len(buffers) > 1:  # Those of two shapes are kept.
                    buffers.clear()
                buffers[batch, time] = MicroBatch(self.config, batch, time)
            micro_batch = buffers[batch, time]
            if part.step.grads:
                losses[number] = micro_batch.loss_and_grads(x, y, part.step, part.number, first)
            else:
                losses[number] = micro_batch.loss(x, y, part.step)

        # Each thread calls BLAS by itself, so BLAS must not start threads of its own.
        with limited(1) if self.matmul == "blas" else contextlib.nullcontext():
            self.team.for_each(len(parts), work, region, begin)
        self.is_packed = True
        return losses

    def parts(
        self, batches: Sequence[Batch], grads: Sequence[Tensors], total: int,
        dropout_key: int | None, first: int = 0, done: Callable[[str], None] | None = None,
    ) -> list[Part]:  # fmt: skip
        """Return the micro-batches of some batches; without gradients, only to go forward."""
        rows = sum(tokens.size for tokens, _ in batches)
        if len(self.dembedded) != rows:
            self.dembedded = np.zeros((rows, self.config.n_embd), np.float32)
        counts = [micro_batch_count(*tokens.shape) for tokens, _ in batches]
        layers, threads = places(self.params), min(self.team.size, sum(counts))
        region = ParallelRegion(threads, len(counts) * len(layers))
        # BLAS chooses the order of its sums by the shapes, so its matmuls are not split.
        ours = self.matmul != "blas"
        is_split = ours and sum(counts) == 1 and self.team.size > 1
        found: list[Part] = []
        row = 0
        for number, (tokens, targets) in enumerate(batches):
            step = Step(
                params=self.params,
                grads=grads[number],
                dembedded=self.dembedded[row : row + tokens.size],
                matmuls=self.matmuls,
                region=region,
                scale=1 / total,
                dropout_key=dropout_key,
                places=layers,
                team=self.team if is_split else ALONE,
                recorded=ours and not is_split,
                batch=number,
                count=counts[number],
                first=first,
                done=done,
            )
            row, first = row + tokens.size, first + len(tokens)
            for place, part in enumerate(micro_batches(*tokens.shape)):
                found.append(Part(step, place, part, tokens[part], targets[part]))
        return found

    def mean(self, losses: Sequence[float], total: int) -> float:
        """Return the mean loss of a step, from the results of `accumulate` for all its batches."""
        return math.fsum(losses) * (1 / total)

    def sums_of_squares(self, grads: Tensors) -> list[float]:
        """Return the sum of squares of each block of rows, for the norm of the gradients."""
        recording = self.recordings.get(
            lambda recorder: update.sums_of_squares(recorder, grads), ("squares",), *grads.values()
        )
        recording.share(self.team, NORM * numbers(grads))
        return recording.results.tolist()

    def norm(self, grads: Tensors) -> float:
        """Return the norm of all gradients seen as one vector; the sum of squares is exact."""
        return math.sqrt(math.fsum(self.sums_of_squares(grads)))

    def update(
        self, optimizer: Optimizer, grads: Tensors, norm: float, learning_rate: float,
        grad_clip: float, params: Tensors | None = None,
    ) -> None:  # fmt: skip
        """Take one optimizer step, in place, with gradients scaled down to a norm of grad_clip.

        params: those to update, of which grads are the gradients; by default the model's.
        """
        scale = grad_clip / norm if 0 < grad_clip < norm else 1.0
        params = self.model.params if params is None else params
        optimizer.steps += 1
        tasks = update.matrix_tasks(optimizer, params, grads, scale, learning_rate)
        if tasks:
            region = ParallelRegion(min(self.team.size, len(tasks)))
            self.team.for_each(len(tasks), lambda _, number: tasks[number](), region)
        tensors = params, grads, optimizer.first, optimizer.second
        recording = self.recordings.get(
            lambda recorder: update.elements(recorder, optimizer, params, grads),
            ("elements",), *(array for each in tensors for array in each.values()),
        )  # fmt: skip
        update.write_recipes(recording.results, optimizer, scale, learning_rate)
        recording.share(self.team, UPDATE * numbers(grads))


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


def counted(targets: np.ndarray) -> int:
    """Return the number of targets that count, those other than -1."""
    return int(np.not_equal(targets, -1).sum())


def numbers(tensors: Tensors) -> int:
    """Return how many numbers some tensors hold."""
    return sum(tensor.size for tensor in tensors.values())


def ids(tokens: np.ndarray) -> np.ndarray:
    """(B, T) -> (N,) int64."""
    return np.ascontiguousarray(tokens, np.int64).reshape(-1)


def memory_estimate(
    config: GPTConfig, batch_size: int, threads: int, batches: int, gradients: int, averages: float
) -> int:
    """Return about how many bytes training takes.

    Each parameter has `gradients` gradients, `averages` running means, two unless ranks divide
    them, and, where weights are packed, two copies. Each thread has buffers for two shapes, of
    training and of evaluation. Python and the compiler take about 300 MB.
    """
    micro_batches = micro_batch_count(batch_size, config.block_size)
    together = at_once(micro_batches, threads, batches)
    rows = -(-batch_size // micro_batches) * config.block_size
    thread = buffer_size(config, rows) + SCRATCH
    copies = 1 + gradients + averages + 2 * (batches * micro_batches >= PACK_FROM)
    count = min(threads, together * micro_batches)
    # The gradient of the embedded tokens, the tokens and the targets.
    batch = together * batch_size * config.block_size * (config.n_embd + 4)
    return 300_000_000 + int(4 * (copies * param_count(config) + 2 * count * thread + batch))
