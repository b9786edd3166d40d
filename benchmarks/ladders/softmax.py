"""Softmax, from a loop in Python to the kernel of attention and the loss.

Speedups are over the rung before, at cpu and at lecture (forward; backward).

NumPy: whole arrays (x50, x45; x146, x124).
three passes: fewer over memory, but exp is a call per element, where NumPy has a vectorised one
    (x0.83, x0.64; x2.0, x2.4).
vectors: with a branch-free maximum too, all three loops are vectorised (x7.3, x9.1; x4.0, x2.7).
parallel: two threads. Less than 0.1 ms of work is done before the other has woken up (x0.17,
    x0.75; x0.13, x0.55); at gpt2 it pays off (x1.7; x1.6).

Tried on top of vectors; times relative to it:

- One of its two ideas alone. With the C library's exp 4.6 at cpu and 5.8 at lecture, with sums in
  order 6.1 and 7.6: a loop with a call, or with a serial sum, is not vectorised.
- Recomputing the exponentials in the last pass instead of storing them: 1.4, 1.7.
- The sum in a separate loop, as in NumPy: 1.1, 1.2.
- Maximum and sum in one pass (online), with a running maximum: 13, 16; with the polynomial exp: 9,
  11. Each element depends on the one before, and exp is called twice.
- Vector instructions by hand instead of the compiler's: 0.85 to 1.1, 1.0.
- In the backward, keeping the products for the mean in dx: 1.2, 1.0.
"""

import math
from typing import Any

import numpy as np

from benchmarks.cases import unchecked
from benchmarks.ladders import Rung, both, in_numpy
from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.kernels import softmax as trained
from tinygpt_np.ops import softmax

backward = unchecked(softmax.backward)


def python_forward(x: np.ndarray, probs: np.ndarray) -> None:
    """x (N, V) -> probs (N, V)."""
    for n, row in enumerate(x.tolist()):
        largest = max(row)
        exps = [math.exp(value - largest) for value in row]
        total = sum(exps)
        probs[n] = [value / total for value in exps]


def python_backward(dprobs: np.ndarray, probs: np.ndarray, dx: np.ndarray) -> None:
    """dprobs, probs (N, V) -> dx (N, V)."""
    for n, (upstream, row) in enumerate(zip(dprobs.tolist(), probs.tolist(), strict=True)):
        mean = sum(a * b for a, b in zip(upstream, row, strict=True))
        dx[n] = [p * (d - mean) for d, p in zip(upstream, row, strict=True)]


@strict
def three_passes(x: Any, probs: Any) -> None:
    """x (N, V) -> probs (N, V)."""
    for n in range(x.shape[0]):
        largest = x[n, 0]
        for v in range(x.shape[1]):
            largest = max(largest, x[n, v])
        total = np.float32(0)
        for v in range(x.shape[1]):
            probs[n, v] = math.exp(x[n, v] - largest)
            total += probs[n, v]
        for v in range(x.shape[1]):
            probs[n, v] /= total


TRAINED = both(trained.forward_rows, trained.backward_rows)
RUNGS = [
    Rung("Python", "Lists and loops, one element at a time.", both(python_forward, python_backward),
         max_flops=2e7),
    Rung("NumPy", "A pass over memory and a new array for each operation.",
         in_numpy(softmax.forward, backward, lambda inputs: (inputs["probs"], None))),
    Rung("three passes", "The loops of Python compiled as written, one element at a time.",
         both(three_passes, strict(trained.backward_rows.py_func))),
    Rung("vectors",
         "A branch-free polynomial exp and sums that may be reordered: 16 elements at a time.",
         TRAINED, trained=True),
    Rung("parallel", "The same kernel, with the rows split between threads.", TRAINED,
         threads="several", trained=True),
]  # fmt: skip
