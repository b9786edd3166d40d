"""AdamW, compiled: the update of model/optimizer.py in one pass over memory."""

import math
from typing import Any

import numpy as np

from tinygpt_np.compiled.cache import kernel
from tinygpt_np.config import ADAM_EPSILON

EPSILON = np.float32(ADAM_EPSILON)


@kernel
def update(param: Any, grad: Any, first: Any, second: Any, recipe: Any) -> None:
    """Update param, first and second in place, all flat, by the gradient grad · scale.

    recipe: scale, learning_rate, weight_decay (0 for vectors), beta1, beta2, and the corrections
    1 - beta1ᵗ, 1 - beta2ᵗ at step t ≥ 1; a plain tuple, which Numba passes fastest.
    """
    scale, learning_rate, weight_decay, beta1, beta2, correction1, correction2 = recipe
    # Numbers arrive as float64; one of them in the loop would make all of it float64.
    clipping, fresh1, fresh2 = np.float32(scale), np.float32(1 - beta1), np.float32(1 - beta2)
    shrink = np.float32(1 - learning_rate * weight_decay)
    rate = np.float32(learning_rate / correction1)
    correction = np.float32(correction2)
    for i in range(param.size):
        g = grad[i] * clipping
        first[i] += fresh1 * (g - first[i])
        second[i] += fresh2 * (g * g - second[i])
        denominator = math.sqrt(second[i] / correction) + EPSILON
        param[i] = param[i] * shrink - rate * first[i] / denominator


@kernel
def sum_of_squares(grad: Any) -> Any:
    """Return the float64 sum of squares of grad, flat, with equal bits on equal machines."""
    total = 0.0
    for i in range(grad.size):
        g = np.float64(grad[i])
        total += g * g
    return total
