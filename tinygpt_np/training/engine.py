"""Training engines: the loss, gradients and updates of a model in NumPy or in compiled code."""

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tinygpt_np import backend, machine
from tinygpt_np.config import GPTConfig, TrainConfig
from tinygpt_np.model.gpt import GPT
from tinygpt_np.model.optimizer import AdamW, clip, global_norm
from tinygpt_np.storage.parameters import Tensors, param_count
from tinygpt_np.text.batches import EVAL_TOKENS

if TYPE_CHECKING:  # Importing it loads a compiler.
    from tinygpt_np.compiled.engine import CompiledEngine

Engine: TypeAlias = "NumPyEngine | CompiledEngine"


class NumPyEngine:
    """The loss, gradients and updates of a model in NumPy; CompiledEngine has the same methods.

    A step takes `batches` batches of batch_size sequences, one batch at a time. The argument
    `dropout` is the result of `draw`: masks here, a key in compiled code.
    """

    def __init__(self, model: GPT, batch_size: int, batches: int = 1) -> None:
        self.model, self.batch_size, self.batches = model, batch_size, batches

    def warm_up(self, optimizer: AdamW) -> None:
        """Do nothing; compiled code is compiled here, without changing the model."""

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
        """tokens, targets (B, T) -> loss in nats, gradients; the next call may overwrite them."""
        self.model.check_targets(tokens, targets)
        counted = int((targets != -1).sum())
        loss, grads = 0.0, dict[str, np.ndarray]()
        for number, start in enumerate(range(0, len(tokens), self.batch_size)):
            batch = slice(start, start + self.batch_size)
            # The loss of a batch is a mean over its own targets.
            weight = int((targets[batch] != -1).sum()) / counted
            if weight == 0:
                continue
            masks = dropout[number] if dropout else None
            batch_loss, batch_grads = self.model.loss_and_grads(
                tokens[batch], targets[batch], masks
            )
            loss += weight * batch_loss
            for name, grad in batch_grads.items():
                weighted = grad if weight == 1 else grad * weight
                grads[name] = grads[name] + weighted if name in grads else weighted
        return loss, grads

    def norm(self, grads: Tensors) -> float:
        """Return the global norm of the gradients."""
        return global_norm(grads)

    def update(
        self, optimizer: AdamW, grads: Tensors, norm: float, learning_rate: float, grad_clip: float
    ) -> None:
        """Take one optimizer step in place, with gradients clipped to a norm of grad_clip."""
        optimizer.update(self.model.params, clip(grads, norm, grad_clip), learning_rate)

    def close(self) -> None:
        """Do nothing; compiled code stops its threads."""


def make(model: GPT, config: TrainConfig) -> Engine:
    """Return the engine of the configured backend."""
    if config.backend == "numpy":
        return NumPyEngine(model, config.batch_size, config.gradient_accumulation_steps)
    return backend.engine().CompiledEngine(
        model, config.sequences_per_step, config.threads or None, config.matmul
    )


def memory_estimate(config: GPTConfig, run: TrainConfig) -> int:
    """Return about how many bytes training takes; Python and its libraries take 130 MB.

    In NumPy, a parameter has a gradient and two moving averages. Per token, a block saves 20·C
    values (two layer norms, qkv, three arrays of 4·C) and two rows of attention per head, and the
    loss saves two rows of V. The backward needs as much again; evaluation may read more tokens.
    """
    if run.backend == "numba":
        return backend.engine().memory_estimate(config, run.sequences_per_step, run.threads)
    block = 20 * config.n_embd + 2 * config.n_head * config.block_size
    per_token = config.n_layer * block + 2 * config.vocab_size
    tokens = max(2 * run.batch_size * run.block_size, EVAL_TOKENS)
    # With accumulation, the sum of the gradients is kept in addition to those of the next batch.
    copies = 4 + (run.gradient_accumulation_steps > 1)
    numbers = copies * param_count(config) + per_token * tokens
    return 130_000_000 + np.dtype(run.dtype).itemsize * numbers


def check_memory(config: GPTConfig, run: TrainConfig) -> None:
    """Raise ValueError if training needs more memory than is available, and would be killed."""
    available, limit = machine.available_memory(), machine.memory_limit()
    needed = memory_estimate(config, run)
    if needed > available:
        of = "" if limit == math.inf else f" of the {limit / 1e6:,.0f} MB of its control group"
        raise ValueError(
            f"training would take about {needed / 1e6:,.0f} MB, but only {available / 1e6:,.0f} MB"
            f"{of} are available: choose a smaller model, batch_size or block_size"
        )
