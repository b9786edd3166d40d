"""Sum: add along one axis, then along another one.

    y_n = Σ_c Σ_t x_tnc                   x: (T, N, C)   y: (N,)

Derivation. Each element is a term of exactly one sum, with the factor 1, so it gets the gradient of
that sum unchanged:

    ∂L/∂rows_nc = ∂L/∂y_n                 for every c
    ∂L/∂x_tnc   = ∂L/∂rows_nc             for every t

A sum in the forward is a broadcast in the backward. NumPy aligns shapes at their last axes: a first
axis that was summed needs nothing, and any other one needs an axis of size 1, as in dy[:, None],
which is (N, 1).
Common mistakes: dy without [:, None], which is added along the wrong axis if N = C; and
np.broadcast_to for both lines. It returns a read-only view that repeats the memory of dy. A
gradient that is returned must have its own memory, because the caller may add to it.
"""

from typing import Any

import numpy as np


def forward(x: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (T, N, C) -> y (N,), saved."""
    rows = x.sum(axis=0)  # (N, C)
    y = rows.sum(axis=1)  # (N,)
    return y, (x, rows)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (N,) -> dx (T, N, C)."""
    x, rows = saved
    # y = rows.sum(axis=1)
    drows = np.zeros_like(rows) + dy[:, None]  # (N, C)
    # rows = x.sum(axis=0)
    dx = np.zeros_like(x) + drows  # (T, N, C)
    return dx
