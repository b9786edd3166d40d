"""Embedding: look up the row of a table for each id.

    rows_nc = W[id_n, c]                  ids: (N,) integers   W: (V, C)   rows: (N, C)

The same operation serves tokens (V = vocabulary) and positions (V = block size).

Derivation. W_vc is read once for each n with id_n = v, and each read contributes to the gradient:

    ∂L/∂W_vc = Σ_{n : id_n = v} ∂L/∂rows_nc

This is the product onehotᵀ drows without the zeros. Rows whose id does not occur get exactly zero.
Common mistake: `dweight[ids] += drows`. NumPy reads, adds and writes back once per row, so only the
last occurrence of a repeated token counts. `np.add.at` adds them all.
Source: "Let's build GPT" 00:22:11 (token table), 01:00:18 (position table).
"""

from typing import Any

import numpy as np


def forward(ids: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """ids (N,) integers in [0, V), weight (V, C) -> rows (N, C), saved."""
    rows = weight[ids]  # (N, C)
    return rows, (ids, weight.shape)


def backward(drows: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """drows (N, C) -> dweight (V, C)."""
    ids, shape = saved
    # rows = weight[ids]
    dweight = np.zeros(shape, dtype=drows.dtype)  # (V, C)
    np.add.at(dweight, ids, drows)
    return dweight
