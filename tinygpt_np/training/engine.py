"""What takes the training steps: one way to ask for them, whichever backend computes."""

from typing import Any, Protocol

import numpy as np

from tinygpt_np import backend
from tinygpt_np.config import GPTConfig, TrainConfig
from tinygpt_np.model.gpt import GPT
from tinygpt_np.model.optimizer import AdamW, clip, global_norm
from tinygpt_np.storage.parameters import Tensors, param_count
from tinygpt_np.text.corpus import EVAL_TOKENS


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
    """The model itself, as it stands in model.py and optim.py; batch_size texts at a time.

    batches: of which so many make up a step.
    """

    def __init__(self, model: GPT, batch_size: int, batches: int = 1) -> None:
        self.model, self.batch_size, self.batches = model, batch_size, batches

    def warm_up(self) -> None:
        pass

    def draw(self, rng: np.random.Generator) -> list[Tensors]:
        """The masks of each batch."""
        size, time = self.batch_size, self.model.block_size
        return [self.model.draw_masks(size, time, rng) for _ in range(self.batches)]

    def masks(self, shape: tuple[int, ...], noise: list[Tensors]) -> Tensors:
        return {name: np.concatenate([masks[name] for masks in noise]) for name in noise[0]}

    def loss(self, tokens: np.ndarray, targets: np.ndarray) -> float:
        return self.model.loss(tokens, targets)

    def loss_and_grads(
        self, tokens: np.ndarray, targets: np.ndarray, noise: list[Tensors] | None = None
    ) -> tuple[float, Tensors]:
        self.model.check_targets(tokens, targets)
        counted = int((targets != -1).sum())
        loss, grads = 0.0, dict[str, np.ndarray]()
        for number, start in enumerate(range(0, len(tokens), self.batch_size)):
            part = slice(start, start + self.batch_size)
            # Each batch has a mean of its own; its share of the whole is that of its targets.
            share = int((targets[part] != -1).sum()) / counted
            if share == 0:
                continue
            masks = noise[number] if noise else None
            part_loss, part_grads = self.model.loss_and_grads(tokens[part], targets[part], masks)
            loss += share * part_loss
            for name, grad in part_grads.items():
                weighted = grad if share == 1 else grad * share
                grads[name] = grads[name] + weighted if name in grads else weighted
        return loss, grads

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
        return NumPyEngine(model, config.batch_size, config.gradient_accumulation_steps)
    return backend.engine().CompiledEngine(
        model, config.chunks_per_step, config.threads or None, config.matmul
    )


def memory_estimate(config: GPTConfig, run: TrainConfig) -> int:
    """About how many bytes training takes.

    NumPy: each parameter has its gradient and two running means. What a block saves for its
    backward are, per token, 20·C values (two layer norms, qkv, three arrays of 4·C) and two rows of
    attention per head; the loss keeps two rows of V. The backward needs about as much again; an
    evaluation, which has none, may take more tokens at once. Python and its libraries take about
    130 MB.
    """
    if run.backend == "numba":
        return backend.engine().memory_estimate(config, run.chunks_per_step, run.threads)
    block = 20 * config.n_embd + 2 * config.n_head * config.block_size
    per_row = config.n_layer * block + 2 * config.vocab_size
    rows = max(2 * run.batch_size * run.block_size, EVAL_TOKENS)
    # Of several batches a step, the sum of their gradients stands beside those of the next.
    copies = 4 + (run.gradient_accumulation_steps > 1)
    numbers = copies * param_count(config) + per_row * rows
    return 130_000_000 + np.dtype(run.dtype).itemsize * numbers
