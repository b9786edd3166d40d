"""Squared ReLU, from a loop in Python to the kernel of the MLP.

Speedups are over the rung before, at cpu and at lecture (forward; backward).

NumPy: whole arrays (x84, x19; x2200, x2000). Its forward also saves what its backward needs.
fused: one loop, which the compiler vectorises (x103, x300; x2.8, x2.5).
vectors: the loop of all activations, a vector at a time, is no faster: memory is the limit (x0.83,
    x1.0; x0.95, x0.91).
parallel: two threads. The work takes less than 0.1 ms.
"""

from typing import Any

import numpy as np

from benchmarks.cases import unchecked
from benchmarks.ladders import Rung, both, contiguous, in_numpy
from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.kernels import relu_squared as trained
from tinygpt_np.ops import relu_squared

ZERO, TWO = np.float32(0), np.float32(2)
forward, backward = unchecked(relu_squared.forward), unchecked(relu_squared.backward)


def python_forward(hidden: np.ndarray, squares: np.ndarray) -> None:
    """hidden (P,) -> squares (P,)."""
    for i, value in enumerate(hidden.tolist()):
        squares[i] = value * value if value > 0 else 0


def python_backward(dsquares: np.ndarray, hidden: np.ndarray, dhidden: np.ndarray) -> None:
    """dsquares, hidden (P,) -> dhidden (P,)."""
    for i, (upstream, value) in enumerate(zip(dsquares.tolist(), hidden.tolist(), strict=True)):
        dhidden[i] = 2 * upstream * value if value > 0 else 0


@strict
def fused(hidden: Any, squares: Any) -> None:
    """hidden (P,) -> squares (P,)."""
    for i in range(hidden.size):
        squares[i] = hidden[i] * hidden[i] if hidden[i] > ZERO else ZERO


@strict
def fused_back(dsquares: Any, hidden: Any, dhidden: Any) -> None:
    """dsquares, hidden (P,) -> dhidden (P,)."""
    for i in range(hidden.size):
        dhidden[i] = TWO * dsquares[i] * hidden[i] if hidden[i] > ZERO else ZERO


TRAINED = contiguous(both(trained.forward_values, trained.backward_values))
RUNGS = [
    Rung("Python", "A loop over a list.", both(python_forward, python_backward), max_flops=1e7),
    Rung("NumPy", "A pass over memory and a new array for each operation.",
         in_numpy(forward, backward, lambda inputs: forward(inputs["hidden"])[1])),
    Rung("fused", "One loop that reads hidden and writes squares.", both(fused, fused_back)),
    Rung("vectors", "The loop of all activations, a vector at a time.", TRAINED, trained=True),
    Rung("parallel", "The same kernel, with the elements split between threads.", TRAINED,
         threads="several", trained=True),
]  # fmt: skip
