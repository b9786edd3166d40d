"""Training engines: the loss, gradients and updates of a model in NumPy or in compiled code."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tinygpt_np import backend, machine
from tinygpt_np.config import GPTConfig, TrainConfig
from tinygpt_np.model.gpt import GPT
from tinygpt_np.model.optimizer import AdamW, clip, global_norm, sums_of_squares
from tinygpt_np.storage.parameters import BLOCK, Tensors, param_count
from tinygpt_np.text.batches import EVAL_TOKENS
from tinygpt_np.training.ranks import order
from tinygpt_np.training.ranks.exchange import WINDOW
from tinygpt_np.training.ranks.group import ALONE, Group

if TYPE_CHECKING:  # Importing it loads a compiler.
    from tinygpt_np.compiled.engine import CompiledEngine

Engine: TypeAlias = "NumPyEngine | CompiledEngine"


class NumPyEngine:
    """The loss, gradients and updates of a model in NumPy; CompiledEngine has the same methods.

    A step takes `batches` batches of batch_size sequences, one at a time. The argument `dropout`
    is the result of `draw`: masks of each batch here, a key in compiled code.
    """

    def __init__(self, model: GPT, batch_size: int, batches: int = 1) -> None:
        self.model, self.batch_size, self.batches = model, batch_size, batches

    def warm_up(self, optimizer: AdamW) -> None:
        """Do nothing; compiled code is compiled here, without changing the model."""

    def prepare(self) -> None:
        """Do nothing; compiled code learns here that the weights have changed."""

    def at_once(self, batches: int) -> int:
        """Return 1: batches do not run at the same time."""
        return 1

    def draw(self, rng: np.random.Generator) -> Any:
        """Draw the dropout of one step."""
        size, time = self.batch_size, self.model.block_size
        return [self.model.draw_masks(size, time, rng) for _ in range(self.batches)]

    def masks(self, shape: tuple[int, ...], dropout: Any) -> Tensors:
        """Return the dropout masks of a step, in the form that GPT.forward takes."""
        return {name: np.concatenate([masks[name] for masks in dropout]) for name in dropout[0]}

    def loss(self, tokens: np.ndarray, targets: np.ndarray) -> float:
        """tokens, targets (B, T) with any B and T ≤ block_size -> mean loss, without dropout."""
        return self.model.loss(tokens, targets)

    def loss_and_grads(
        self, tokens: np.ndarray, targets: np.ndarray, dropout: Any = None
    ) -> tuple[float, Tensors]:
        """tokens, targets (B, T) of one batch -> loss in nats, gradients."""
        self.model.check_targets(tokens, targets)
        return self.model.loss_and_grads(tokens, targets, dropout[0] if dropout else None)

    def accumulate(
        self,
        batches: Sequence[tuple[np.ndarray, np.ndarray]],
        grads: Sequence[Tensors],
        total: int,
        dropout: Any,
        first: int = 0,
        done: Callable[[str], None] | None = None,
    ) -> list[float]:
        """Write the gradient of each batch, as CompiledEngine does; return parts of the loss."""
        losses: list[float] = []
        for number, ((tokens, targets), into) in enumerate(zip(batches, grads, strict=True)):
            # The loss of a batch is a mean over its own targets.
            weight = int((targets != -1).sum()) / total
            if weight == 0:
                losses.append(0.0)
                for grad in into.values():
                    grad.fill(0)
            else:
                self.model.check_targets(tokens, targets)
                masks = dropout[first // self.batch_size + number] if dropout else None
                loss, found = self.model.loss_and_grads(tokens, targets, masks)
                losses.append(weight * loss)
                for name, grad in found.items():
                    np.multiply(grad, weight, out=into[name])
            if done:
                for name in into:
                    done(name)
        return losses

    def mean(self, losses: Sequence[float], total: int) -> float:
        """Return the mean loss of a step, from the results of `accumulate` for all its batches."""
        return math.fsum(losses)

    def sums_of_squares(self, grads: Tensors) -> list[float]:
        """Return the sum of squares of each block of rows, for the norm of the gradients."""
        return sums_of_squares(grads)

    def norm(self, grads: Tensors) -> float:
        """Return the global norm of the gradients."""
        return global_norm(grads)

    def update(
        self, optimizer: AdamW, grads: Tensors, norm: float, learning_rate: float,
        grad_clip: float, params: Tensors | None = None,
    ) -> None:  # fmt: skip
        """Take one optimizer step in place, with gradients clipped to a norm of grad_clip.

        params: those to update, of which grads are the gradients; by default the model's.
        """
        params = self.model.params if params is None else params
        optimizer.update(params, clip(grads, norm, grad_clip), learning_rate)

    def close(self) -> None:
        """Do nothing; compiled code stops its threads."""


def make(model: GPT, config: TrainConfig, group: Group = ALONE) -> Engine:
    """Return the engine of the configured backend, for one of the ranks of a group."""
    own = order.share(config.gradient_accumulation_steps, group.size, group.rank)
    if config.backend == "numpy":
        return NumPyEngine(model, config.batch_size, config.gradient_accumulation_steps)
    threads = config.threads or group.cores
    return backend.engine().CompiledEngine(
        model, config.batch_size, threads, config.matmul, len(own)
    )


def memory_estimate(config: GPTConfig, run: TrainConfig, group: Group = ALONE) -> int:
    """Return about how many bytes training takes on a rank; Python and NumPy take 130 MB.

    In NumPy, a parameter has a gradient and, divided among the ranks, two moving averages; with
    several batches there are more gradients, see ranks/order.py. Per token, a block saves 20·C
    values (two layer norms, qkv, three arrays of 4·C) and two rows of attention per head, and the
    loss saves two rows of V. The backward needs as much again; evaluation may read more tokens.
    """
    batches = run.gradient_accumulation_steps
    own = order.share(batches, group.size, group.rank)
    params = param_count(config)
    # The first of several ranks gets all of them to save.
    averages = 2 / group.size + (2 if group.size > 1 and group.rank == 0 else 0)
    if run.backend == "numba":
        compiled = backend.engine()
        threads = run.threads or group.cores
        micro_batches = compiled.micro_batch_count(run.batch_size, run.block_size)
        at_once = compiled.at_once(micro_batches, threads, len(own))
        gradients = order.plan(batches, own, at_once).count
        return received(params, batches, group) + compiled.memory_estimate(
            config, run.batch_size, threads, len(own), gradients, averages
        )
    block = 20 * config.n_embd + 2 * config.n_head * config.block_size
    per_token = config.n_layer * block + 2 * config.vocab_size
    tokens = max(2 * run.batch_size * run.block_size, EVAL_TOKENS)
    # The gradients of the model are copied into those of the plan.
    copies = 2 + order.plan(batches, own, 1).count + averages
    numbers = copies * params + per_token * tokens
    return (
        130_000_000 + int(np.dtype(run.dtype).itemsize * numbers) + received(params, batches, group)
    )


def received(params: int, batches: int, group: Group) -> int:
    """Return about how many bytes of partial sums a rank receives at the same time."""
    owns = [order.share(batches, group.size, rank) for rank in range(group.size)]
    sums = sum(len(order.plan(batches, own, 1).ranges) for own in owns if own != owns[group.rank])
    return 4 * sums * min(WINDOW * BLOCK, params // group.size)


def check_memory(config: GPTConfig, run: TrainConfig, group: Group = ALONE) -> None:
    """Raise ValueError if training needs more memory than is available, and would be killed."""
    limit = machine.memory_limit()
    # All ranks look before any of them takes memory.
    rows = group.share([machine.available_memory(), memory_estimate(config, run, group)])
    here = [rows[rank] for rank in group.local]
    available, needed = min(each for each, _ in here), sum(each for _, each in here)
    if needed > available:
        of = "" if limit == math.inf else f" of the {limit / 1e6:,.0f} MB of its control group"
        ranks = "" if len(here) == 1 else f" for the {len(here)} ranks of this machine"
        raise ValueError(
            f"training would take about {needed / 1e6:,.0f} MB{ranks}, but only "
            f"{available / 1e6:,.0f} MB{of} are available: choose a smaller model, batch_size or "
            "block_size"
        )
