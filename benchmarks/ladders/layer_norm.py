"""Layer norm, from a loop in Python to what a block of the transformer is made with.

All backwards are given the mean and 1/s of each row, as forward saves them. After each rung, what
it gained over the one before, at cpu and at lecture (forward; backward).

Python: lists and loops.
NumPy: whole arrays (x81, x76; x90, x88). Its backward is given x̂ as well.
naive: the loops compiled, an array for each step. No more calls; but a sum goes number by number,
    each waiting for the last, where NumPy has vectors (x1.9, x1.3; x2.4, x1.6).
fused: a row is read, summed and written while it is in the nearest cache, and x̂ is never stored
    (x1.05, x1.4; x1.0, x1.4).
vectors: the same loops; but sums may be regrouped, so there are many chains, of vectors
    (x5.7, x6.7; x3.3, x3.0). Its backward adds to dx, dweight and dbias, as the residual stream
    wants it; what it takes to set them to zero before is timed with it.
parallel: rows to two threads; each adds to a dweight and dbias of its own. The work takes from 7 to
    180 µs, less than it takes to wake the other thread (x0.04, x0.5; x0.09, x0.65).

Tried, in the time of vectors:

- mean(x²) - mean(x)², so that one pass is enough: 0.7 to 0.8, and wrong. In the rows that lie far
  from 0 it is off by up to 0.5, and the gate refuses it.
- Welford's running mean and variance, one pass and accurate: 19 at cpu and at lecture. Each number
  waits for a division by its count.
- x - mean kept in y between the second pass and the third: 0.9 in quiet moments, 0.7 to 1.1 in
  others. The difference is about as quick to make again as to load.
- In the backward, x̂ and dy·w of a row kept in a buffer, not made again: 1.05 and 1.1.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.ladders import Call, Rung, Way, direct
from benchmarks.tasks import plain
from tinygpt_np.compiled.cache import exact
from tinygpt_np.compiled.kernels import layer_norm as trained
from tinygpt_np.ops import layer_norm

EPSILON = np.float32(layer_norm.EPSILON)
ZERO, ONE = np.float32(0), np.float32(1)
forward, backward = plain(layer_norm.forward), plain(layer_norm.backward)


def python_forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, y: np.ndarray) -> None:
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


def numpy_forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, y: np.ndarray) -> None:
    y[...] = forward(x, weight, bias)[0]


def numpy_backward(dy: np.ndarray, saved: tuple[Any, ...], *outputs: np.ndarray) -> None:
    for output, found in zip(outputs, backward(dy, saved), strict=True):
        output[...] = found


def prepare_numpy_backward(call: Call) -> Callable[[], None]:
    dy, x, weight = call.inputs.values()
    saved = forward(x, weight, np.zeros_like(weight))[1]
    return functools.partial(numpy_backward, dy, saved, *call.outputs.values())


def with_moments(function: Callable[..., Any]) -> Way:
    """backward, given the mean and 1/s of each row, as forward saved them."""

    def prepare(call: Call) -> Callable[[], Any]:
        return functools.partial(
            function, *call.inputs.values(), *moments(call), *call.outputs.values()
        )

    return Way(prepare, (function,) if hasattr(function, "py_func") else ())


def moments(call: Call) -> tuple[np.ndarray, np.ndarray]:
    """The mean and 1/s of each row, (N,)."""
    x, weight = call.inputs["x"], call.inputs["weight"]
    return trained.forward(x, weight)[1][2:4]


@exact
def array_a_step(x: Any, weight: Any, bias: Any, y: Any) -> None:
    N, C = x.shape
    mean, var = np.zeros(N, np.float32), np.zeros(N, np.float32)
    centered, square, xhat = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    for n in range(N):
        for c in range(C):
            mean[n] += x[n, c]
        mean[n] /= np.float32(C)
    for n in range(N):
        for c in range(C):
            centered[n, c] = x[n, c] - mean[n]
    for n in range(N):
        for c in range(C):
            square[n, c] = centered[n, c] * centered[n, c]
    for n in range(N):
        for c in range(C):
            var[n] += square[n, c]
        var[n] /= np.float32(C)
    for n in range(N):
        for c in range(C):
            xhat[n, c] = centered[n, c] / math.sqrt(var[n] + EPSILON)
    for n in range(N):
        for c in range(C):
            y[n, c] = xhat[n, c] * weight[c] + bias[c]


@exact
def array_a_step_back(
    dy: Any, x: Any, weight: Any, mean: Any, rstd: Any, dx: Any, dweight: Any, dbias: Any
) -> None:
    N, C = x.shape
    xhat, dxhat = np.empty_like(x), np.empty_like(x)
    along_ones, along_xhat = np.zeros(N, np.float32), np.zeros(N, np.float32)
    dweight[:], dbias[:] = ZERO, ZERO
    for n in range(N):
        for c in range(C):
            xhat[n, c] = (x[n, c] - mean[n]) * rstd[n]
    for n in range(N):
        for c in range(C):
            dbias[c] += dy[n, c]
    for n in range(N):
        for c in range(C):
            dweight[c] += dy[n, c] * xhat[n, c]
    for n in range(N):
        for c in range(C):
            dxhat[n, c] = dy[n, c] * weight[c]
    for n in range(N):
        for c in range(C):
            along_ones[n] += dxhat[n, c]
        along_ones[n] /= np.float32(C)
    for n in range(N):
        for c in range(C):
            along_xhat[n] += dxhat[n, c] * xhat[n, c]
        along_xhat[n] /= np.float32(C)
    for n in range(N):
        for c in range(C):
            dx[n, c] = (dxhat[n, c] - along_ones[n] - xhat[n, c] * along_xhat[n]) * rstd[n]


@exact
def row_a_time(x: Any, weight: Any, bias: Any, y: Any) -> None:
    size = np.float32(x.shape[1])
    for n in range(x.shape[0]):
        total = square = ZERO
        for c in range(x.shape[1]):
            total += x[n, c]
        mean = total / size
        for c in range(x.shape[1]):
            square += (x[n, c] - mean) * (x[n, c] - mean)
        rstd = ONE / math.sqrt(square / size + EPSILON)
        for c in range(x.shape[1]):
            y[n, c] = (x[n, c] - mean) * rstd * weight[c] + bias[c]


@exact
def row_a_time_back(
    dy: Any, x: Any, weight: Any, mean: Any, rstd: Any, dx: Any, dweight: Any, dbias: Any
) -> None:
    size = np.float32(x.shape[1])
    dweight[:], dbias[:] = ZERO, ZERO
    for n in range(x.shape[0]):
        along_ones = along_xhat = ZERO
        for c in range(x.shape[1]):
            xhat = (x[n, c] - mean[n]) * rstd[n]
            dbias[c] += dy[n, c]
            dweight[c] += dy[n, c] * xhat
            along_ones += dy[n, c] * weight[c]
            along_xhat += dy[n, c] * weight[c] * xhat
        along_ones /= size
        along_xhat /= size
        for c in range(x.shape[1]):
            xhat = (x[n, c] - mean[n]) * rstd[n]
            dx[n, c] = (dy[n, c] * weight[c] - along_ones - xhat * along_xhat) * rstd[n]


def prepare_vectors(call: Call) -> Callable[[], Any]:
    x, weight, bias = call.inputs.values()
    mean, rstd = np.empty((2, len(x)), np.float32)
    return functools.partial(trained.forward_rows, x, weight, bias, call.outputs["y"], mean, rstd)


def prepare_parallel(call: Call) -> Callable[[], None]:
    x, weight, bias = call.inputs.values()
    y, mean, rstd = call.outputs["y"], *np.empty((2, len(x)), np.float32)
    tasks = [
        functools.partial(
            trained.forward_rows, x[rows], weight, bias, y[rows], mean[rows], rstd[rows]
        )
        for rows in call.shares(len(x))
    ]
    return functools.partial(call.run_all, tasks)


def add_from_zero(*arrays: np.ndarray) -> None:
    """The kernel adds to dx, dweight and dbias, as training wants it, so they start at zero."""
    for gradient in arrays[-3:]:
        gradient.fill(0)
    trained.backward_rows(*arrays)


def prepare_vectors_back(call: Call) -> Callable[[], None]:
    return functools.partial(
        add_from_zero, *call.inputs.values(), *moments(call), *call.outputs.values()
    )


def prepare_parallel_back(call: Call) -> Callable[[], None]:
    dy, x, weight = call.inputs.values()
    mean, rstd = moments(call)
    dx, dweight, dbias = call.outputs.values()
    shares = call.shares(len(x))
    # Each thread adds to its own, for two that add to one place lose some of it.
    parts = np.empty((2, len(shares), weight.size), np.float32)
    tasks = [
        functools.partial(
            add_from_zero, dy[rows], x[rows], weight, mean[rows], rstd[rows], dx[rows], *own
        )
        for rows, own in zip(shares, parts.transpose(1, 0, 2), strict=True)
    ]

    def step() -> None:
        call.run_all(tasks)
        parts[0].sum(axis=0, out=dweight)
        parts[1].sum(axis=0, out=dbias)

    return step


RUNGS = [
    Rung(
        "Python",
        "Lists and loops, a number at a time.",
        {"forward": direct(python_forward), "backward": with_moments(python_backward)},
        most=5e6,
    ),
    Rung(
        "NumPy",
        "A pass over memory, and a new array, for each operation.",
        {"forward": direct(numpy_forward), "backward": Way(prepare_numpy_backward)},
    ),
    Rung(
        "naive",
        "The loops compiled, but still an array for each step.",
        {"forward": direct(array_a_step), "backward": with_moments(array_a_step_back)},
    ),
    Rung(
        "fused",
        "A row at a time, while it is in the nearest cache, with nothing kept but its sums.",
        {"forward": direct(row_a_time), "backward": with_moments(row_a_time_back)},
    ),
    Rung(
        "vectors",
        "The same with sums that may be regrouped: 16 lanes of them instead of one chain.",
        {
            "forward": Way(prepare_vectors, (trained.forward_rows,)),
            "backward": Way(prepare_vectors_back, (trained.backward_rows,)),
        },
    ),
    Rung(
        "parallel",
        "The same kernel, rows shared out to threads, each with its own dweight and dbias.",
        {
            "forward": Way(prepare_parallel, (trained.forward_rows,)),
            "backward": Way(prepare_parallel_back, (trained.backward_rows,)),
        },
        threads="several",
    ),
]
