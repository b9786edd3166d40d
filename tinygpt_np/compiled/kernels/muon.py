"""Muon, compiled: the update of one matrix of model/muon.py, by products of small square matrices.

A step of Newton-Schulz is X ← P X with P = aI + bA + cA² and A = X Xᵀ. The next A is P A P, so all
of them are polynomials of the first A: they are symmetric, as are their products. So the steps need
only A and the product Q of all P, which are (m, m), and X (m, n) is read twice: by the first A and
by Q X. Of the symmetric products only the blocks on and below the diagonal are computed.

In float32 the rounding of A grows by a² in each step, to 1e-3 of the largest singular value after
five; bfloat16, in which Muon is usually computed, errs more in each product.

Source: Amsel et al., "The Polar Express" (2025), appendix F, and Zhang et al., "Gram
Newton-Schulz" (2026).
"""

import math
from typing import Any, NamedTuple

import numpy as np

from tinygpt_np.compiled.cache import kernel, strict
from tinygpt_np.compiled.kernels.matmul import (
    PANEL,
    PLAIN,
    TRANSPOSED,
    make_scratch,
    matmul,
    matmul_part,
    matrix_of,
    moved,
    transpose,
)
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.compiled.simd.vectors import LANES, load, store
from tinygpt_np.config import MUON_EPSILON, NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS


class Buffers(NamedTuple):
    """A thread's memory: for two matrices, four symmetric ones, and the scratch of matmul."""

    x: np.ndarray
    y: np.ndarray
    symmetric: np.ndarray
    scratch: np.ndarray


def make_buffers(arena: Arena, numbers: int, side: int) -> Buffers:
    """Return memory for matrices of up to this many numbers, whose shorter side is up to `side`."""
    square = arena.zeros(4, side * side)
    return Buffers(arena.zeros(numbers), arena.zeros(numbers), square, make_scratch(arena))


@strict
def update(
    param: Any, grad: Any, first: Any, left: Any, right: Any, recipe: Any, buffers: Any
) -> None:
    """Update the columns left to right of param and first (C, K) in place, as one matrix.

    recipe: scale of the gradient, learning_rate, weight_decay, momentum; a plain tuple.
    """
    scale, learning_rate, weight_decay, momentum = recipe
    rows, columns = param.shape[0], right - left
    x = buffers.x[: rows * columns].reshape((rows, columns))
    y = buffers.y[: rows * columns].reshape((rows, columns))
    squares = 0.0
    for row in range(rows):
        squares += look_ahead(
            grad[row][left:right], first[row][left:right], x[row], scale, momentum
        )
    orthogonalize(x, squares, y, buffers.symmetric, buffers.scratch)
    rate = learning_rate * math.sqrt(max(1.0, columns / rows))
    for row in range(rows):
        descend(param[row][left:right], y[row], 1 - learning_rate * weight_decay, rate)


@strict
def orthogonalize(x: Any, squares: Any, y: Any, symmetric: Any, scratch: Any) -> None:
    """x (C, K), overwritten, the sum of its squares -> y (C, K), with singular values near one."""
    divide(x.reshape(-1), math.sqrt(squares) + MUON_EPSILON)
    rows, columns = x.shape
    tall, m = rows > columns, min(rows, columns)
    nothing = scratch[:0].reshape((0, 1))
    gram = symmetric[0, : m * m].reshape((m, m))
    p = symmetric[1, : m * m].reshape((m, m))
    q = symmetric[2, : m * m].reshape((m, m))
    spare = symmetric[3, : m * m].reshape((m, m))
    # The smaller of X Xᵀ and Xᵀ X, so that a tall X need not be transposed.
    symmetric_matmul(x, tall, x, PLAIN if tall else TRANSPOSED, gram, scratch)
    for step in range(NEWTON_SCHULZ_STEPS):
        symmetric_matmul(gram, False, gram, PLAIN, spare, scratch)
        polynomial(gram, spare, p)
        if step + 1 < NEWTON_SCHULZ_STEPS:
            symmetric_matmul(p, False, gram, PLAIN, spare, scratch)
            symmetric_matmul(spare, False, p, PLAIN, gram, scratch)
        if step == 0:
            p, q = q, p
        else:
            symmetric_matmul(q, False, p, PLAIN, spare, scratch)
            q, spare = spare, q
    left, right = (x, q) if tall else (q, x)
    matmul(left, False, right, PLAIN, nothing, y, scratch)


@strict
def symmetric_matmul(a: Any, across: Any, b: Any, form: Any, c: Any, scratch: Any) -> None:
    """matmul, c (m, m) = a·b, of which the part below the diagonal is computed and mirrored."""
    m, nothing = c.shape[0], scratch[:0].reshape((0, 1))
    for left in range(0, m, PANEL):
        right = min(left + PANEL, m)
        matmul_part(a, across, b, form, nothing, c, left, m, left, right, scratch)
    mirror(c)


@strict
def mirror(c: Any) -> None:
    """Copy the numbers below the diagonal of c (m, m) to those above it.

    All of them: if small blocks on the diagonal were not symmetric, errors would be 8 times larger.
    """
    m, whole = c.shape[0], matrix_of(c)
    for left in range(0, m, LANES):
        right = min(left + LANES, m)
        for row in range(left, right):
            for column in range(row + 1, right):
                value = load(moved(whole, column, row).address)
                store(moved(whole, row, column).address, value)
        below, above = moved(whole, right, left), moved(whole, left, right)
        transpose(below, right - left, m - right, above)


@kernel
def look_ahead(grad: Any, first: Any, ahead: Any, scale: Any, momentum: Any) -> Any:
    """grad, first (K,): update first, write Nesterov's momentum; return its sum of squares."""
    clipping, fresh, total = np.float32(scale), np.float32(1 - momentum), 0.0
    for i in range(ahead.size):
        g = grad[i] * clipping
        first[i] += fresh * (g - first[i])
        ahead[i] = first[i] + fresh * (g - first[i])
        total += np.float64(ahead[i]) * np.float64(ahead[i])
    return total


@kernel
def divide(x: Any, norm: Any) -> None:
    """Divide x (K,) by a float64 number, which may be too large or too small for float32."""
    for i in range(x.size):
        x[i] = np.float32(x[i] / norm)


@kernel
def polynomial(gram: Any, square: Any, p: Any) -> None:
    """gram (m, m), its square -> p = aI + b·gram + c·square."""
    a, b, c = (
        np.float32(NEWTON_SCHULZ[0]),
        np.float32(NEWTON_SCHULZ[1]),
        np.float32(NEWTON_SCHULZ[2]),
    )
    for row in range(len(p)):
        for i in range(len(p)):
            p[row, i] = b * gram[row, i] + c * square[row, i]
        p[row, row] += a


@kernel
def descend(param: Any, direction: Any, shrink: Any, rate: Any) -> None:
    """param, direction (K,): param = param·shrink - rate·direction, in place."""
    shrinking, moving = np.float32(shrink), np.float32(rate)
    for i in range(param.size):
        param[i] = param[i] * shrinking - moving * direction[i]
