"""The optimizers, clipping by the global norm, and the learning-rate schedule."""

import math
from collections.abc import Mapping

import numpy as np

from tinygpt_np.config import ADAM_EPSILON, TrainConfig
from tinygpt_np.model import muon
from tinygpt_np.storage.parameters import Tensors, blocks


class AdamW:
    """Adam with decoupled weight decay (Loshchilov, Hutter 2019, algorithm 2), in PyTorch's form.

    In PyTorch the learning rate multiplies the decay too; in the paper only the schedule does.

    Only matrices decay, not biases or layer norm scales. `first` and `second` are the running means
    of g and g², with the names and shapes of the parameters. The square of every gradient must be
    finite; see overflowing_square.
    """

    def __init__(self, params: Tensors, beta1: float, beta2: float, weight_decay: float) -> None:
        self.beta1, self.beta2, self.weight_decay = beta1, beta2, weight_decay
        self.steps = 0
        self.first = {name: np.zeros_like(param) for name, param in params.items()}
        self.second = {name: np.zeros_like(param) for name, param in params.items()}

    def update(self, params: Tensors, grads: Tensors, learning_rate: float) -> None:
        """Update every parameter in place."""
        self.steps += 1
        # Bias correction, because both means start at zero.
        correction1 = 1 - self.beta1**self.steps
        correction2 = 1 - self.beta2**self.steps
        for name, second in self.second.items():
            param, grad, first = params[name], grads[name], self.first[name]
            first += (1 - self.beta1) * (grad - first)
            second += (1 - self.beta2) * (grad * grad - second)
            if param.ndim >= 2:
                param *= 1 - learning_rate * self.weight_decay
            denominator = np.sqrt(second / correction2) + ADAM_EPSILON
            param -= learning_rate / correction1 * first / denominator


class Muon(AdamW):
    """Muon for the matrices in `parts`, AdamW for the other parameters; see muon.py.

    `first` is the momentum of a matrix, and `second` has the others only. `parts` are the columns
    of each matrix that are orthogonalized together. A matrix's learning rate is that of the others
    times relative_rate.
    """

    def __init__(
        self, params: Tensors, parts: dict[str, list[slice]], momentum: float,
        relative_rate: float, beta1: float, beta2: float, weight_decay: float,
    ) -> None:  # fmt: skip
        super().__init__(params, beta1, beta2, weight_decay)
        self.parts, self.momentum, self.relative_rate = parts, momentum, relative_rate
        for name in parts:
            del self.second[name]

    def update(self, params: Tensors, grads: Tensors, learning_rate: float) -> None:
        """Update every parameter in place."""
        super().update(params, grads, learning_rate)
        rate = learning_rate * self.relative_rate
        for name, parts in self.parts.items():
            param, grad, first = params[name], grads[name], self.first[name]
            first += (1 - self.momentum) * (grad - first)
            # Nesterov's momentum: one more such step, ahead of time, with the same gradient.
            ahead = first + (1 - self.momentum) * (grad - first)
            param *= 1 - rate * self.weight_decay
            for columns in parts:
                update = muon.orthogonalized(ahead[:, columns])
                param[:, columns] -= rate * muon.scale_of(*update.shape) * update


def make(config: TrainConfig, params: Tensors) -> AdamW:
    """Return the configured optimizer of a GPT's parameters."""
    adamw = config.beta1, config.beta2, config.weight_decay
    if config.optimizer == "adamw":
        return AdamW(params, *adamw)
    relative_rate = config.muon_learning_rate / config.learning_rate
    return Muon(
        params, muon.parts_of(config, params), config.muon_momentum, relative_rate, *adamw
    )  # fmt: skip


def sums_of_squares(grads: Mapping[str, np.ndarray]) -> list[float]:
    """Return the float64 sum of squares of each block of rows of the gradients."""
    parts = (grad[rows] for grad in grads.values() for rows in blocks(grad.shape))
    return [float(np.sum(np.square(part, dtype=np.float64))) for part in parts]


def global_norm(grads: Mapping[str, np.ndarray]) -> float:
    """Return the norm of all gradients as one vector; the sum over blocks is exact."""
    return math.sqrt(math.fsum(sums_of_squares(grads)))


def overflowing_square(grads: Mapping[str, np.ndarray], norm: float, largest: float) -> str:
    """Return the first gradient whose square is infinite after clipping to `largest`, or "".

    AdamW's running mean would stay infinite, and the parameter would never move again.
    """
    scale = largest / norm if 0 < largest < norm else 1.0
    for name, grad in grads.items():
        limit = math.sqrt(np.finfo(grad.dtype).max)
        # No element is larger than the norm, so one comparison is usually enough.
        if norm * scale > limit and float(np.abs(grad).max()) * scale > limit:
            return name
    return ""


def clip(grads: Tensors, norm: float, largest: float) -> Tensors:
    """Scale the gradients down if their global norm is above `largest`; 0 clips nothing."""
    if largest == 0 or norm <= largest:
        return grads
    return {name: grad * (largest / norm) for name, grad in grads.items()}


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Return linear warm-up, then a decay to min_lr: half a cosine, as in nanoGPT, or a line."""
    if step < config.warmup_iters:
        return config.learning_rate * (step + 1) / (config.warmup_iters + 1)
    if step >= config.lr_decay_iters:
        return config.min_lr
    progress = (step - config.warmup_iters) / (config.lr_decay_iters - config.warmup_iters)
    left = 1 - progress if config.lr_decay == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return config.min_lr + (config.learning_rate - config.min_lr) * left
