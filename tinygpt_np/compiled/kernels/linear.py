"""Linear, compiled: three matmuls (see matmul.py), and the column sums of dy."""

from typing import Any

import numpy as np

from tinygpt_np.compiled.cache import kernel
from tinygpt_np.compiled.kernels.matmul import PLAIN, TRANSPOSED, make_scratch, matmul
from tinygpt_np.compiled.simd.arrays import floats
from tinygpt_np.compiled.simd.memory import workspace


@kernel
def add_column_sums(dy: Any, dbias: Any) -> None:
    """Add the rows of dy (N, K) to dbias (K,), in order."""
    for row in range(dy.shape[0]):
        for column in range(dy.shape[1]):
            dbias[column] += dy[row, column]


@kernel
def add_bias(x: Any, bias: Any, y: Any) -> None:
    """y (N, K) = x (N, K) + bias (K,)."""
    for row in range(x.shape[0]):
        for column in range(x.shape[1]):
            y[row, column] = x[row, column] + bias[column]


def forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (N, C), weight (C, K), bias (K,) or None -> y (N, K), saved."""
    x = floats(x, "linear.forward: x")  # (N, C)
    stored, form = operand_of(weight, "linear.forward: weight")  # (C, K) or (K, C)
    start = np.zeros((0, weight.shape[1]), np.float32)  # (0, K)
    if bias is not None:
        start = floats(bias, "linear.forward: bias")[None]  # (1, K)
    y = np.empty((x.shape[0], weight.shape[1]), np.float32)  # (N, K)
    matmul(x, False, stored, form, start, y, workspace.get(make_scratch))
    return y, (x, weight, bias is None)


def backward(
    dy: np.ndarray, saved: tuple[Any, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """dy (N, K) -> dx (N, C), dweight (C, K), dbias (K,) or None if there was no bias."""
    x, weight, unbiased = saved
    dy = floats(dy, "linear.backward: dy")  # (N, K)
    stored, form = operand_of(weight.T, "linear.backward: weight")  # (K, C) or (C, K)
    dbias, scratch = None, workspace.get(make_scratch)
    if not unbiased:
        dbias = np.zeros(dy.shape[1], np.float32)  # (K,)
        add_column_sums(dy, dbias)
    nothing = np.zeros((0, 1), np.float32)
    dx, dweight = np.empty_like(x), np.empty(weight.shape, np.float32)  # (N, C), (C, K)
    matmul(dy, False, stored, form, nothing, dx, scratch)
    matmul(x, True, dy, PLAIN, nothing, dweight, scratch)
    return dx, dweight, dbias


def operand_of(matrix: np.ndarray, name: str) -> tuple[np.ndarray, int]:
    """Return a matrix and its form for matmul.

    It is not copied if its columns are contiguous, as those of a head tied to the embedding are.
    """
    if matrix.T.flags.c_contiguous:
        return floats(matrix.T, name), TRANSPOSED
    return floats(matrix, name), PLAIN
