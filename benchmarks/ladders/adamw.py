"""AdamW, from a loop in Python to the kernel that ends a training step.

Speedups are over the rung before, at cpu and at lecture.

NumPy: one or two new arrays for each statement of the optimizer (x260 at cpu).
fused: intermediate values stay in registers, but the numbers of the recipe are float64, and so is
    all arithmetic with them (x1.7, x3.4). A loop per statement takes 1.7 and 2.1 times as long.
vectors: twice the lanes, no conversions, and roots and divisions, the slowest operations, in half
    the time or less (x4.1, x2.6). The rest is memory: 28 bytes per element.
parallel: two threads (x0.17, x0.69; x1.1 at gpt2).

Tried; times relative to vectors, at cpu and at lecture:

- float64 numbers, but with sums and products that may be reordered: 2.9, 2.5. So it is the type.
- Every operation as written, without fastmath: 1.2, 1.1.
- Two loops, first the means, then the weights: 1.1, 1.6, because the means are read twice.
- Both bias corrections folded into the rate and ε: 0.9 to 1.1, 0.9. Memory hides a division, and
  the formula would differ from the optimizer's.
- NumPy in pieces of 8192, so that temporaries stay in cache: 1.5 times NumPy's time at cpu, 0.8
  at lecture, 0.6 at gpt2.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks.cases.adamw import NUMBERS
from benchmarks.ladders import Call, Rung, Runner, contiguous, direct
from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.kernels import adamw as trained
from tinygpt_np.config import ADAM_EPSILON


def with_numbers(call: Call, rows: slice) -> Iterable[Any]:
    """Return some rows of the arrays, and the numbers of the recipe."""
    return *(array[rows] for array in call.inputs.values()), NUMBERS


def update(function: Any) -> dict[str, Runner]:
    """Return the runner of a function of the arrays and the numbers."""
    return {"update": direct(function, with_numbers)}


def python_update(param: Any, grad: Any, first: Any, second: Any, numbers: Any) -> None:
    """param, grad, first, second (P,): update param, first and second in place."""
    scale, learning_rate, weight_decay, beta1, beta2, correction1, correction2 = numbers
    arrays = (param, grad, first, second)
    for i, (w, g, m, v) in enumerate(zip(*(a.tolist() for a in arrays), strict=True)):
        g *= scale
        m += (1 - beta1) * (g - m)
        v += (1 - beta2) * (g * g - v)
        w *= 1 - learning_rate * weight_decay
        w -= learning_rate / correction1 * m / (math.sqrt(v / correction2) + ADAM_EPSILON)
        param[i], first[i], second[i] = w, m, v


def numpy_update(param: Any, grad: Any, first: Any, second: Any, numbers: Any) -> None:
    """param, grad, first, second (P,): update param, first and second in place."""
    scale, learning_rate, weight_decay, beta1, beta2, correction1, correction2 = numbers
    g = grad * scale
    first += (1 - beta1) * (g - first)
    second += (1 - beta2) * (g * g - second)
    param *= 1 - learning_rate * weight_decay
    denominator = np.sqrt(second / correction2) + ADAM_EPSILON
    param -= learning_rate / correction1 * first / denominator


@strict
def fused(param: Any, grad: Any, first: Any, second: Any, numbers: Any) -> None:
    """param, grad, first, second (P,): update param, first and second in place."""
    scale, learning_rate, weight_decay, beta1, beta2, correction1, correction2 = numbers
    for i in range(param.size):
        g = grad[i] * scale
        first[i] += (1 - beta1) * (g - first[i])
        second[i] += (1 - beta2) * (g * g - second[i])
        denominator = math.sqrt(second[i] / correction2) + ADAM_EPSILON
        shrunk = param[i] * (1 - learning_rate * weight_decay)
        param[i] = shrunk - learning_rate / correction1 * first[i] / denominator


def with_recipe(call: Call, rows: slice) -> Iterable[Any]:
    """Return some rows of the arrays, and the numbers of the recipe in an array."""
    return *(array[rows] for array in call.inputs.values()), np.array(NUMBERS)


TRAINED = contiguous({"update": direct(trained.update, with_recipe)})
RUNGS = [
    Rung("Python", "A loop over lists.", update(python_update), max_flops=8e6),
    Rung("NumPy", "A pass over memory and a new array for each operation.", update(numpy_update)),
    Rung("fused", "One loop: each array is read once and written once.", update(fused)),
    Rung("vectors",
         "The numbers converted to float32 before the loop, which ran in float64: twice the lanes.",
         TRAINED, trained=True),
    Rung("parallel", "The same kernel, with the weights split between threads.",
         TRAINED, threads="several", trained=True),
]  # fmt: skip
