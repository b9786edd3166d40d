"""What takes the training steps: one way to ask for them, whichever backend computes."""

import importlib
from typing import Any, Protocol

import numpy as np

from tinygpt_np.config import GPTConfig, TrainConfig
from tinygpt_np.data import EVAL_TOKENS
from tinygpt_np.model import GPT, param_count
from tinygpt_np.optim import AdamW, clip, global_norm

Tensors = dict[str, np.ndarray]


class Engine(Protocol):
    """Loss, gradients and updates of one model, for batches of one shape (B, T).

    noise: what stands for a step's dropout masks; each engine draws its own kind.
    """

    def warm_up(self) -> None:
        """Compiles what a step needs, if anything, and changes nothing."""
        ...

    def draw(self, rng: np.random.Generator) -> Any:
        """The noise of one step, drawn from the generator of dropout."""
        ...

    def masks(self, shape: tuple[int, ...], noise: Any) -> Tensors:
        """The dropout masks that the noise stands for, as GPT.forward takes them."""
        ...

    def loss(self, tokens: np.ndarray, targets: np.ndarray) -> float:
        """tokens, targets (B, T) of any B and T ≤ block_size -> mean loss, without dropout."""
        ...

    def loss_and_grads(
        self, tokens: np.ndarray, targets: np.ndarray, noise: Any = None
    ) -> tuple[float, Tensors]:
        """tokens, targets (B, T) -> loss in nats, gradients like params, until the next call."""
        ...

    def norm(self, grads: Tensors) -> float:
        """The norm of all gradients seen as one vector."""
        ...

    def update(
        self, optimizer: AdamW, grads: Tensors, norm: float, learning_rate: float, grad_clip: float
    ) -> None:
        """One step of the optimizer, in place; gradients of a norm above grad_clip are clipped."""
        ...

    def close(self) -> None:
        """Ends its threads, if it has any."""
        ...


class NumPyEngine:
    """The model itself, as it stands in model.py and optim.py."""

    def __init__(self, model: GPT, batch_size: int) -> None:
        self.model, self.batch_size = model, batch_size

    def warm_up(self) -> None:
        pass

    def draw(self, rng: np.random.Generator) -> Tensors:
        return self.model.draw_masks(self.batch_size, self.model.block_size, rng)

    def masks(self, shape: tuple[int, ...], noise: Tensors) -> Tensors:
        return noise

    def loss(self, tokens: np.ndarray, targets: np.ndarray) -> float:
        return self.model.loss(tokens, targets)

    def loss_and_grads(
        self, tokens: np.ndarray, targets: np.ndarray, noise: Tensors | None = None
    ) -> tuple[float, Tensors]:
        return self.model.loss_and_grads(tokens, targets, noise)

    def norm(self, grads: Tensors) -> float:
        return global_norm(grads)

    def update(
        self, optimizer: AdamW, grads: Tensors, norm: float, learning_rate: float, grad_clip: float
    ) -> None:
        optimizer.update(self.model.params, clip(grads, norm, grad_clip), learning_rate)

    def close(self) -> None:
        pass


def make(model: GPT, config: TrainConfig) -> Engine:
    """The engine of the configuration's backend."""
    if config.backend == "numpy":
        return NumPyEngine(model, config.batch_size)
    # Imported only here: it brings a compiler with it.
    parallel: Any = importlib.import_module("tinygpt_np.parallel")
    return parallel.Engine(model, config.batch_size, config.threads or None, config.matmul)


def memory_estimate(config: GPTConfig, run: TrainConfig) -> int:
    """About how many bytes training takes.

    NumPy: each parameter has its gradient and two running means. What a block saves for its
    backward are, per token, 20·C values (two layer norms, qkv, three arrays of 4·C) and two rows of
    attention per head; the loss keeps two rows of V. The backward needs about as much again; an
    evaluation, which has none, may take more tokens at once. Python and its libraries take about
    130 MB.
    """
    if run.backend == "numba":
        parallel: Any = importlib.import_module("tinygpt_np.parallel")
        return parallel.memory_estimate(config, run.batch_size, run.threads)
    block = 20 * config.n_embd + 2 * config.n_head * config.block_size
    per_row = config.n_layer * block + 2 * config.vocab_size
    rows = max(2 * run.tokens_per_step, EVAL_TOKENS)
    return 130_000_000 + 4 * (4 * param_count(config) + per_row * rows)
