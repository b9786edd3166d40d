"""RMS norm, from a loop in Python to the kernel of a transformer block.

All backwards get 1/r of each row, as saved by the forward; NumPy's gets x̂ and r. Speedups are over
the rung before, at cpu and at lecture (forward; backward).

NumPy: whole arrays (x93, x460; x630, x650).
fused: sums are serial, where NumPy's are vectorised, but x̂ is never stored (x2.5, x1.4; x2.2,
    x2.0). The backward adds to the gradients, as the residual stream needs it; zeroing them first
    is timed with it.
vectors: the same with whole vectors, the last one masked (x3.0, x4.5; x2.8, x3.0).
parallel: two threads. The work takes 3 to 40 µs, less than waking up the other thread.
"""

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from benchmarks.cases import unchecked
from benchmarks.cases.rms_norm import EPSILON
from benchmarks.ladders import Call, Rung, Runner, both, contiguous, direct, in_numpy
from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.kernels import rms_norm as trained
from tinygpt_np.ops import rms_norm

ZERO, ONE, PADDING = np.float32(0), np.float32(1), np.float32(EPSILON)
backward = unchecked(rms_norm.backward)


def forward(stream: np.ndarray, weight: np.ndarray) -> Any:
    """Return what the forward of ops/ returns."""
    return unchecked(rms_norm.forward)(stream, weight, EPSILON)


def python_forward(stream: np.ndarray, weight: np.ndarray, normed: np.ndarray) -> None:
    """stream (N, C), weight (C,) -> normed (N, C)."""
    scales = weight.tolist()
    for n, row in enumerate(stream.tolist()):
        rstd = 1 / math.sqrt(sum(value * value for value in row) / len(row) + EPSILON)
        normed[n] = [value * rstd * w for value, w in zip(row, scales, strict=True)]


def python_backward(
    dnormed: np.ndarray, stream: np.ndarray, weight: np.ndarray, rstd: np.ndarray,
    dstream: np.ndarray, dweight: np.ndarray,
) -> None:  # fmt: skip
    """dnormed, stream (N, C), weight (C,), rstd (N,) -> dstream (N, C), dweight (C,)."""
    scales, sums = weight.tolist(), [0.0] * weight.size
    rows = zip(dnormed.tolist(), stream.tolist(), rstd.tolist(), strict=True)
    for n, (upstream, row, scale) in enumerate(rows):
        xhat = [value * scale for value in row]
        dxhat = [d * w for d, w in zip(upstream, scales, strict=True)]
        slope = sum(d * h for d, h in zip(dxhat, xhat, strict=True)) / len(row)
        dstream[n] = [(d - h * slope) * scale for d, h in zip(dxhat, xhat, strict=True)]
        sums = [s + d * h for s, d, h in zip(sums, upstream, xhat, strict=True)]
    dweight[:] = sums


@strict
def fused(stream: Any, weight: Any, epsilon: Any, normed: Any, rstd: Any) -> None:
    """stream (N, C), weight (C,) -> normed (N, C), rstd (N,)."""
    size = np.float32(stream.shape[1])
    for n in range(stream.shape[0]):
        total = ZERO
        for c in range(stream.shape[1]):
            total += stream[n, c] * stream[n, c]
        rstd[n] = ONE / math.sqrt(total / size + PADDING)
        for c in range(stream.shape[1]):
            normed[n, c] = stream[n, c] * rstd[n] * weight[c]


@strict
def fused_back(
    dnormed: Any, stream: Any, weight: Any, rstd: Any, dstream: Any, dweight: Any
) -> None:
    """Add to dstream (N, C) and dweight (C,). dnormed, stream (N, C), weight (C,), rstd (N,)."""
    size = np.float32(stream.shape[1])
    for n in range(stream.shape[0]):
        scale, along_xhat = rstd[n], ZERO
        for c in range(stream.shape[1]):
            xhat = stream[n, c] * scale
            along_xhat += dnormed[n, c] * weight[c] * xhat
            dweight[c] += dnormed[n, c] * xhat
        along_xhat /= size
        for c in range(stream.shape[1]):
            dstream[n, c] += (dnormed[n, c] * weight[c] - stream[n, c] * scale * along_xhat) * scale


def with_new_scales(call: Call, rows: slice) -> Iterable[Any]:
    """Return the arguments of a forward that writes 1/r of each row, too."""
    stream, weight, normed = call.arrays.values()
    return stream[rows], weight, EPSILON, normed[rows], np.empty(len(stream[rows]), np.float32)


def row_at_a_time(forward: Any, backward: Any) -> dict[str, Runner]:
    """Return the runners of kernels."""

    def add_from_zero(*arrays: np.ndarray) -> None:
        """Zero dstream and dweight, and call the backward, which adds to them."""
        for gradient in arrays[-2:]:
            gradient.fill(0)
        backward(*arrays)

    def prepare_backward(call: Call) -> Callable[[], None]:
        dnormed, stream, weight, rstd = call.inputs.values()
        dstream, dweight = call.outputs.values()
        # Each other thread has its own sums: concurrent additions to one array would be lost.
        others: list[np.ndarray] = []

        def part(rows: slice) -> Callable[[], None]:
            sums = dweight
            if rows.start:
                sums = np.empty_like(weight)
                others.append(sums)
            return functools.partial(
                add_from_zero, dnormed[rows], stream[rows], weight, rstd[rows], dstream[rows], sums
            )

        run = call.share(len(stream), part)

        def step() -> None:
            run()
            for sums in others:
                dweight[...] += sums

        return step if others else run

    return both(direct(forward, with_new_scales), Runner(prepare_backward, (backward,)))


FUSED = row_at_a_time(fused, fused_back)
TRAINED = contiguous(row_at_a_time(trained.forward_rows, trained.backward_rows))
RUNGS = [
    Rung("Python", "Lists and loops, one element at a time.",
         both(python_forward, python_backward), max_flops=5e6),
    Rung("NumPy", "A pass over memory and a new array for each operation.",
         in_numpy(forward, backward,
                  lambda inputs: forward(inputs["stream"], inputs["weight"])[1])),
    Rung("fused", "A row at a time, while it is in L1, keeping only its sum.", FUSED),
    Rung("vectors", "Vectors of the host's width, also for the sums.", TRAINED, trained=True),
    Rung("parallel",
         "The same kernel, with the rows split between threads, each with its own sums.",
         TRAINED, threads="several", trained=True),
]  # fmt: skip
