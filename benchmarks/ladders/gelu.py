"""GELU, from a loop in Python to the kernel of the MLP.

Speedups are over the rung before, at cpu and at lecture (forward; backward).

NumPy: whole arrays (x121, x78; x122). Its backward gets the tanh that its forward saved; all
    other rungs save only x and recompute it.
fused: slower, because tanh is a call per element, where NumPy has a vectorised one (x0.13, x0.30;
    x0.30, x0.54). A loop per operation with temporary arrays takes 1.08 and 1.03 times as long.
vectors: ½ (1 + tanh u) is the sigmoid of 2u, so one exp is enough (x37, x45; x33, x34). It is also
    more accurate far below 0, where 1 + tanh u is only rounding error.
parallel: two threads. The work takes less than 0.6 ms, hardly enough to split (x0.45, x1.3; x0.43,
    x1.5).

Tried; times relative to vectors (forward; backward), at cpu and at lecture:

- The sigmoid form with the C library's exp, one element at a time: 7, 8; 6, 9. So exp instead of
  tanh gains 5, and the vectorised polynomial the rest.
- The same formulas in a loop that the compiler vectorises: 1.3, 1.3; 1.4, 1.3. It chooses vectors
  of half the width.
- Such a loop with a polynomial tanh, keeping 1 + tanh: 1.6, 1.7; 1.5, 1.3.
- Reordered sums (fastmath) in the fused loop: no change, because tanh remains a call.
- Saving the gate in the forward, so that the backward needs no exp: 0.6 to 0.7 at cpu, where all
  is in cache, 1.0 to 1.1 at lecture; but it takes memory in every block for the whole step.
"""

import math
from typing import Any

import numpy as np

from benchmarks.cases import unchecked
from benchmarks.ladders import Rung, both, contiguous, in_numpy
from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.kernels import gelu as trained
from tinygpt_np.ops import gelu

SCALE, CUBIC = np.float32(gelu.SQRT_2_OVER_PI), np.float32(gelu.CUBIC)
HALF, ONE, THREE_CUBIC = np.float32(0.5), np.float32(1), np.float32(3 * gelu.CUBIC)
forward, backward = unchecked(gelu.forward), unchecked(gelu.backward)


def python_forward(x: np.ndarray, y: np.ndarray) -> None:
    """x (P,) -> y (P,)."""
    for i, value in enumerate(x.tolist()):
        tanh = math.tanh(gelu.SQRT_2_OVER_PI * (value + gelu.CUBIC * value**3))
        y[i] = value * (1 + tanh) / 2


def python_backward(dy: np.ndarray, x: np.ndarray, dx: np.ndarray) -> None:
    """dy, x (P,) -> dx (P,)."""
    for i, (upstream, value) in enumerate(zip(dy.tolist(), x.tolist(), strict=True)):
        tanh = math.tanh(gelu.SQRT_2_OVER_PI * (value + gelu.CUBIC * value**3))
        bend = gelu.SQRT_2_OVER_PI * (1 + 3 * gelu.CUBIC * value**2)
        dx[i] = upstream * ((1 + tanh) / 2 + value * (1 - tanh**2) / 2 * bend)


@strict
def fused(x: Any, y: Any) -> None:
    """x (P,) -> y (P,)."""
    for i in range(x.size):
        tanh = math.tanh(SCALE * (x[i] + CUBIC * x[i] * x[i] * x[i]))
        y[i] = HALF * x[i] * (ONE + tanh)


@strict
def fused_back(dy: Any, x: Any, dx: Any) -> None:
    """dy, x (P,) -> dx (P,)."""
    for i in range(x.size):
        square = x[i] * x[i]
        tanh = math.tanh(SCALE * (x[i] + CUBIC * square * x[i]))
        bend = (ONE - tanh * tanh) * SCALE * (ONE + THREE_CUBIC * square)
        dx[i] = HALF * dy[i] * (ONE + tanh + x[i] * bend)


TRAINED = contiguous(both(trained.forward_values, trained.backward_values))
RUNGS = [
    Rung("Python", "A loop over a list with math.tanh.", both(python_forward, python_backward),
         max_flops=1e7),
    Rung("NumPy", "A pass over memory and a new array for each operation.",
         in_numpy(forward, backward, lambda inputs: forward(inputs["x"])[1])),
    Rung("fused", "One loop that reads x and writes y; intermediate values stay in registers.",
         both(fused, fused_back)),
    Rung("vectors",
         "A sigmoid instead of tanh, with a branch-free polynomial exp: 16 elements at a time.",
         TRAINED, trained=True),
    Rung("parallel", "The same kernel, with the elements split between threads.", TRAINED,
         threads="several", trained=True),
]  # fmt: skip
