"""Gather: take the row of a table for each id, and multiply it by x.

    y_nc = table[id_n, c] x_nc            ids: (N,) integers   table: (V, C)   x, y: (N, C)

Derivation. The last step is a product. table_vc is read once for each n with id_n = v, so its
gradient has one term for each of these rows:

    ∂L/∂rows_nc  = ∂L/∂y_nc x_nc
    ∂L/∂x_nc     = ∂L/∂y_nc rows_nc
    ∂L/∂table_vc = Σ_{n : id_n = v} ∂L/∂rows_nc

A row whose id does not occur has the gradient zero, so dtable starts from zeros. ids are
integers and have no gradient.
Common mistake: `dtable[ids] += drows`. NumPy reads all rows, adds, and writes all back, so only the
last occurrence of a repeated id counts. `np.add.at(dtable, ids, drows)` adds them all.
"""

from typing import Any

import numpy as np


def forward(
    table: np.ndarray, ids: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """table (V, C), ids (N,) integers in [0, V), x (N, C) -> y (N, C), saved."""
    rows = table[ids]  # (N, C)
    y = rows * x  # (N, C)
    return y, (table, ids, x, rows)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray]:
    """dy (N, C) -> dtable (V, C), dx (N, C)."""
    table, ids, x, rows = saved
    # y = rows * x
    drows = dy * x  # (N, C)
    dx = dy * rows  # (N, C)
    # rows = table[ids]
    dtable = np.zeros_like(table)  # (V, C)
    np.add.at(dtable, ids, drows)
    return dtable, dx
