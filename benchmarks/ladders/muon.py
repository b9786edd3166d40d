"""Muon: five steps of Newton-Schulz, from the formula with a fast matmul to the fewest FLOPs.

Speedups are over the rung before, at cpu, at lecture and for a square matrix of 128 x 128.

five steps: 1.9, 1.5 and 2.1 times as fast as NumPy, whose matmuls are a BLAS.
halves: x1.1, x1.3, x1.15. At 128 only one block of 64 x 64 in four is saved.
Gram: x2.0, x2.6, x0.86. If X is four times as long as wide, the steps on X Xᵀ have less than half
    of the FLOPs; of a square matrix they have as many, in more products. A layer has four square
    matrices and two long ones, which take as much time, so one kernel for both is x1.3.
parallel: a matrix for each thread, as in training.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.ladders import Call, Rung, Runner, contiguous, direct
from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.kernels import adamw
from tinygpt_np.compiled.kernels import muon as trained
from tinygpt_np.compiled.kernels.matmul import PLAIN, TRANSPOSED, matmul
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.config import MUON_EPSILON, NEWTON_SCHULZ_STEPS
from tinygpt_np.model import muon


def in_numpy(x: np.ndarray, y: np.ndarray) -> None:
    """x (B, C, K) -> y (B, C, K)."""
    for matrix, result in zip(x, y, strict=True):
        result[...] = muon.orthogonalized(matrix)


@strict
def whole_product(a: Any, across: Any, b: Any, form: Any, c: Any, scratch: Any) -> None:
    """matmul, c (M, M) = a·b, without using that it is symmetric."""
    matmul(a, across, b, form, scratch[:0].reshape((0, 1)), c, scratch)


def as_written(product: Any) -> Any:
    """Return a kernel that computes the steps with a function for products that are symmetric."""

    @strict
    def orthogonalize(x: Any, y: Any, buffers: Any) -> None:
        tall = x.shape[1] > x.shape[2]
        m, scratch = min(x.shape[1:]), buffers.scratch
        gram = buffers.symmetric[0, : m * m].reshape((m, m))
        square = buffers.symmetric[1, : m * m].reshape((m, m))
        p = buffers.symmetric[2, : m * m].reshape((m, m))
        for i in range(len(x)):
            now = np.ascontiguousarray(x[i].T) if tall else x[i].copy()
            after = np.empty_like(now)
            squares = adamw.sum_of_squares(now.reshape(-1))
            trained.divide(now.reshape(-1), math.sqrt(squares) + MUON_EPSILON)
            for _ in range(NEWTON_SCHULZ_STEPS):
                product(now, False, now, TRANSPOSED, gram, scratch)
                product(gram, False, gram, PLAIN, square, scratch)
                trained.polynomial(gram, square, p)
                matmul(p, False, now, PLAIN, scratch[:0].reshape((0, 1)), after, scratch)
                now, after = after, now
            if tall:
                y[i] = now.T
            else:
                y[i] = now

    return orthogonalize


five_steps, halves = as_written(whole_product), as_written(trained.symmetric_matmul)


@strict
def on_gram(x: Any, y: Any, buffers: Any) -> None:
    """x (B, C, K) -> y (B, C, K)."""
    copy = buffers.x.reshape(x.shape[1:])
    for i in range(len(x)):
        copy[...] = x[i]
        squares = adamw.sum_of_squares(buffers.x)
        trained.orthogonalize(copy, squares, y[i], buffers.symmetric, buffers.scratch)


def shared(function: Any, compiled: Any) -> dict[str, Runner]:
    """Return the runner of a function of x, y and buffers; threads share the matrices."""

    def prepare(call: Call) -> Callable[[], Any]:
        x, y = call.arrays.values()
        _, rows, columns = x.shape

        def part(matrices: slice) -> Callable[[], Any]:
            buffers = trained.make_buffers(Arena(), rows * columns, min(rows, columns))
            return functools.partial(function, x[matrices], y[matrices], buffers)

        return call.share(len(x), part)

    return contiguous({"orthogonalize": Runner(prepare, (compiled,))})


TRAINED = shared(on_gram, trained.orthogonalize)
RUNGS = [
    Rung("five steps", "The formula, with the matmul of training.", shared(five_steps, five_steps)),
    Rung("halves",
         "Of products that are symmetric, the blocks above the diagonal are copied from below.",
         shared(halves, halves)),
    Rung("Gram", "The steps change X Xᵀ, smaller than X, which is multiplied once, at the end.",
         TRAINED, trained=True),
    Rung("parallel", "The same kernel, with a matrix for each thread.",
         TRAINED, threads="several", trained=True),
    Rung("NumPy", "The formula, with a BLAS.", {"orthogonalize": direct(in_numpy)},
         threads="any", reference=True),
]  # fmt: skip
