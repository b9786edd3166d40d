"""Layer norm, from a loop in Python to the kernel of a transformer block.

All backwards get the mean and 1/s of each row, as saved by the forward; NumPy's also gets x̂.
Speedups are over the rung before, at cpu and at lecture (forward; backward).

NumPy: whole arrays (x81, x76; x90, x88).
fused: sums are serial, where NumPy's are vectorised, but x̂ is never stored (x2.0, x1.8). A loop
    and an array per operation take 1.05 and 1.4 times as long. The backward adds to dx, dweight
    and dbias, as the residual stream needs it; zeroing them first is timed with it.
vectors: sums of 16 lanes instead of serial ones (x5.7, x6.7; x7.9 and x6.7 times NumPy).
    Prefetching the rows ahead gains in a training step only, where they are not in L2.
parallel: two threads. The work takes 7 to 180 µs, less than waking up the other thread (x0.04,
    x0.5; x0.09, x0.65).

Tried; times relative to vectors:

- mean(x²) - mean(x)², so that one pass is enough: 0.7 to 0.8, and wrong. In rows far from 0 it is
  off by up to 0.5, and the gate refuses it.
- Welford's running mean and variance, one pass and accurate: 19 at cpu and at lecture. Each
  element depends on a division by its count.
- Keeping x - mean in y between the second and third pass: 0.7 to 1.1. Recomputing the difference
  is about as fast as loading it.
- In the backward, keeping x̂ and dy·w of a row in a buffer: 1.05, 1.1.
"""

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from benchmarks.cases import unchecked
from benchmarks.ladders import Call, Rung, Runner, both, contiguous, direct, in_numpy
from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.kernels import layer_norm as trained
from tinygpt_np.ops import layer_norm

ZERO, ONE = np.float32(0), np.float32(1)
forward, backward = unchecked(layer_norm.forward), unchecked(layer_norm.backward)


def python_forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, y: np.ndarray) -> None:
    """x (N, C), weight (C,), bias (C,) -> y (N, C)."""
    scales, shifts = weight.tolist(), bias.tolist()
    for n, row in enumerate(x.tolist()):
        mean = sum(row) / len(row)
        var = sum((value - mean) ** 2 for value in row) / len(row)
        rstd = 1 / math.sqrt(var + layer_norm.EPSILON)
        y[n] = [
            (value - mean) * rstd * w + b for value, w, b in zip(row, scales, shifts, strict=True)
        ]


def python_backward(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray, mean: np.ndarray, rstd: np.ndarray,
    dx: np.ndarray, dweight: np.ndarray, dbias: np.ndarray,
) -> None:  # fmt: skip
    """dy, x (N, C), weight (C,), mean, rstd (N,) -> dx (N, C), dweight, dbias (C,)."""
    scales, C = weight.tolist(), weight.size
    along_weight, along_bias = [0.0] * C, [0.0] * C
    for n, (upstream, row) in enumerate(zip(dy.tolist(), x.tolist(), strict=True)):
        mu, scale = float(mean[n]), float(rstd[n])
        xhat = [(value - mu) * scale for value in row]
        dxhat = [d * w for d, w in zip(upstream, scales, strict=True)]
        ones = sum(dxhat) / C
        slope = sum(d * h for d, h in zip(dxhat, xhat, strict=True)) / C
        dx[n] = [(d - ones - h * slope) * scale for d, h in zip(dxhat, xhat, strict=True)]
        for c in range(C):
            along_weight[c] += upstream[c] * xhat[c]
            along_bias[c] += upstream[c]
    dweight[:], dbias[:] = along_weight, along_bias


@strict
def fused(x: Any, weight: Any, bias: Any, epsilon: Any, y: Any, mean: Any, rstd: Any) -> None:
    """x (N, C), weight, bias (C,) -> y (N, C), mean and rstd = 1/s (N,)."""
    size = np.float32(x.shape[1])
    for n in range(x.shape[0]):
        total = square = ZERO
        for c in range(x.shape[1]):
            total += x[n, c]
        mu = total / size
        for c in range(x.shape[1]):
            centered = x[n, c] - mu
            square += centered * centered
        scale = ONE / math.sqrt(square / size + np.float32(epsilon))
        mean[n], rstd[n] = mu, scale
        for c in range(x.shape[1]):
            y[n, c] = (x[n, c] - mu) * scale * weight[c] + bias[c]


@strict
def fused_back(
    dy: Any, x: Any, weight: Any, mean: Any, rstd: Any, dx: Any, dweight: Any, dbias: Any
) -> None:
    """Add to dx (N, C), dweight (C,) and dbias (C,). mean, rstd (N,)."""
    size = np.float32(x.shape[1])
    for n in range(x.shape[0]):
        mu, scale = mean[n], rstd[n]
        along_ones = along_xhat = ZERO
        for c in range(x.shape[1]):
            xhat, dxhat = (x[n, c] - mu) * scale, dy[n, c] * weight[c]
            along_ones += dxhat
            along_xhat += dxhat * xhat
            dweight[c] += dy[n, c] * xhat
            dbias[c] += dy[n, c]
        along_ones, along_xhat = along_ones / size, along_xhat / size
        for c in range(x.shape[1]):
            xhat, dxhat = (x[n, c] - mu) * scale, dy[n, c] * weight[c]
            dx[n, c] += (dxhat - along_ones - xhat * along_xhat) * scale


def with_new_moments(call: Call, rows: slice) -> Iterable[Any]:
    """Return the arguments of a forward that writes the mean and 1/s of each row, too."""
    x, weight, bias, y = call.arrays.values()
    own = x[rows]
    return own, weight, bias, layer_norm.EPSILON, y[rows], *np.empty((2, len(own)), np.float32)


def row_at_a_time(forward: Any, backward: Any) -> dict[str, Runner]:
    """Return the runners of a forward and a backward with the signatures of training's kernels."""

    def add_from_zero(*arrays: np.ndarray) -> None:
        """Zero dx, dweight and dbias, and call the backward, which adds to them."""
        for gradient in arrays[-3:]:
            gradient.fill(0)
        backward(*arrays)

    def prepare_backward(call: Call) -> Callable[[], None]:
        dy, x, weight, mean, rstd = call.inputs.values()
        dx, dweight, dbias = call.outputs.values()
        # Each other thread has its own sums: concurrent additions to one array would be lost.
        others: list[np.ndarray] = []

        def part(rows: slice) -> Callable[[], None]:
            sums = dweight, dbias
            if rows.start:
                others.append(np.empty((2, weight.size), np.float32))
                sums = others[-1]
            return functools.partial(
                add_from_zero, dy[rows], x[rows], weight, mean[rows], rstd[rows], dx[rows], *sums
            )

        run = call.share(len(x), part)

        def step() -> None:
            run()
            for sums in others:
                dweight[...] += sums[0]
                dbias[...] += sums[1]

        return step if others else run

    return both(direct(forward, with_new_moments), Runner(prepare_backward, (backward,)))


FUSED = row_at_a_time(fused, fused_back)
TRAINED = contiguous(row_at_a_time(trained.forward_rows, trained.backward_rows))
RUNGS = [
    Rung("Python", "Lists and loops, one element at a time.",
         both(python_forward, python_backward), max_flops=5e6),
    Rung("NumPy", "A pass over memory and a new array for each operation.",
         # With any bias the same is saved.
         in_numpy(forward, backward,
                  lambda inputs: forward(inputs["x"], inputs["weight"], inputs["weight"])[1])),
    Rung("fused", "A row at a time, while it is in L1, keeping only its sums.", FUSED),
    Rung("vectors", "By vectors of 16 lanes, which also hold the sums, with rows prefetched.",
         TRAINED, trained=True),
    Rung("parallel",
         "The same kernel, with the rows split between threads, each with its own sums.",
         TRAINED, threads="several", trained=True),
]  # fmt: skip
