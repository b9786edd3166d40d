"""SwiGLU, from a loop in Python to the kernel of the MLP.

Speedups are over the rung before, at cpu and at lecture (forward; backward).

NumPy: whole arrays (x540 and x810 at cpu). Its backward gets the SiLU and the tanh that its forward
    saved; all other rungs save only the halves and recompute them.
fused: one loop; exp is a call per element, where NumPy's tanh is vectorised (x0.52, x1.1; x0.62,
    x1.3).
vectors: a polynomial exp, a whole vector at a time (x11, x11; x11, x55).
parallel: two threads. The work takes less than 0.3 ms, hardly enough to split.
"""

import math
from typing import Any

import numpy as np

from benchmarks.cases import unchecked
from benchmarks.cases.swiglu import joined
from benchmarks.ladders import Call, Rung, Runner, both, contiguous, direct, in_numpy
from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.kernels import swiglu as trained
from tinygpt_np.ops import swiglu

ONE = np.float32(1)
backward = unchecked(swiglu.backward)


def forward(halves: np.ndarray) -> Any:
    """Return what the forward of ops/ returns."""
    return unchecked(swiglu.forward)(joined(halves))


def python_forward(halves: np.ndarray, y: np.ndarray) -> None:
    """halves (N, 2, F) -> y (N, F)."""
    for n, (gates, ups) in enumerate(halves.tolist()):
        y[n] = [gate * sigmoid(gate) * up for gate, up in zip(gates, ups, strict=True)]


def python_backward(dy: np.ndarray, halves: np.ndarray, dhalves: np.ndarray) -> None:
    """dy (N, F), halves (N, 2, F) -> dhalves (N, 2, F)."""
    for n, (upstream, (gates, ups)) in enumerate(zip(dy.tolist(), halves.tolist(), strict=True)):
        for i, (d, gate, up) in enumerate(zip(upstream, gates, ups, strict=True)):
            s = sigmoid(gate)
            dhalves[n, 0, i] = d * up * (s + gate * s * (1 - s))
            dhalves[n, 1, i] = d * gate * s


def sigmoid(x: float) -> float:
    """Return 1 / (1 + exp(-x))."""
    return 1 / (1 + math.exp(-x))


@strict
def fused(halves: Any, y: Any) -> None:
    """halves (N, 2, F) -> y (N, F)."""
    for n in range(y.shape[0]):
        for i in range(y.shape[1]):
            gate = halves[n, 0, i]
            y[n, i] = gate / (ONE + math.exp(-gate)) * halves[n, 1, i]


@strict
def fused_back(dy: Any, halves: Any, dhalves: Any) -> None:
    """dy (N, F), halves (N, 2, F) -> dhalves (N, 2, F)."""
    for n in range(dy.shape[0]):
        for i in range(dy.shape[1]):
            gate = halves[n, 0, i]
            s = ONE / (ONE + math.exp(-gate))
            dhalves[n, 0, i] = dy[n, i] * halves[n, 1, i] * (s + gate * s * (ONE - s))
            dhalves[n, 1, i] = dy[n, i] * gate * s


def joined_rows(call: Call, rows: slice) -> list[np.ndarray]:
    """Return some rows of all arrays, with their halves one after the other."""
    return [joined(array[rows]) for array in call.arrays.values()]


def on_rows(kernel: Any) -> Runner:
    """Return the runner of a kernel of training."""
    return direct(kernel, joined_rows)


NUMPY = in_numpy(forward, backward, lambda inputs: forward(inputs["halves"])[1])
TRAINED = contiguous(both(on_rows(trained.forward_rows), on_rows(trained.backward_rows)))
RUNGS = [
    Rung("Python", "A loop over lists with math.exp.", both(python_forward, python_backward),
         max_flops=1e7),
    Rung("NumPy", "A pass over memory and a new array for each operation.", NUMPY),
    Rung("fused",
         "One loop that reads the halves and writes y; intermediate values stay in registers.",
         both(fused, fused_back)),
    Rung("vectors", "A branch-free polynomial exp of whole vectors, the last one masked.", TRAINED,
         trained=True),
    Rung("parallel", "The same kernel, with the rows split between threads.", TRAINED,
         threads="several", trained=True),
]  # fmt: skip
