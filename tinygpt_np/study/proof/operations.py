"""The functions, besides NumPy's, in which expressions and their gradients are written.

Labels name axes for a reader, such as V or B,T; they do not change the result.
"""

from typing import Any

import numpy as np

from tinygpt_np.ops.attention import merge_heads, split_heads
from tinygpt_np.ops.gelu_exact import error_function as erf

Axes = tuple[int, ...]
index = np.s_

__all__ = ["erf", "merge_heads", "split_heads"]


def transpose(x: np.ndarray) -> np.ndarray:
    """Return x with its last two axes exchanged."""
    return x.swapaxes(-1, -2)


def permuted(x: np.ndarray, order: Axes) -> np.ndarray:
    """Return x with its axes in another order."""
    return np.transpose(x, order)


def shaped(x: np.ndarray, shape: Axes, label: str) -> np.ndarray:
    """Return x in another shape."""
    return np.reshape(x, shape)


def size(length: int, label: str) -> int:
    """Return the length of an axis."""
    return length


def aggregate(kind: str, x: np.ndarray, axes: Axes, keeps: bool, label: str) -> np.ndarray:
    """Return the sum, mean, max, min, var or std of x along some axes."""
    return getattr(np, kind)(x, axis=axes, keepdims=keeps)


def spread(x: np.ndarray, shape: Axes, axes: Axes) -> np.ndarray:
    """Return x repeated along the axes that a reduction of this shape removed or made 1."""
    if np.ndim(x) < len(shape):
        x = np.expand_dims(x, axes)
    return np.broadcast_to(x, shape)


def sum_to(x: np.ndarray, shape: Axes, label: str) -> np.ndarray:
    """Return x summed over the axes along which an array of this shape was broadcast to it."""
    x = x.sum(axis=tuple(range(x.ndim - len(shape))))
    axes = tuple(axis for axis, length in enumerate(shape) if length == 1 != x.shape[axis])
    return x.sum(axis=axes, keepdims=True)


def scattered(x: np.ndarray, shape: Axes, index: Any) -> np.ndarray:
    """Return zeros of a shape, to which x is added at an index, once for each time it occurs."""
    result = np.zeros(shape, np.result_type(x))
    np.add.at(result, index, x)
    return result
