"""Matmul: multiply two matrices.

    y_nk = Σ_c a_nc b_ck                  a: (N, C)   b: (C, K)   y: (N, K)

Derivation. a_nc is read for every output of row n, where its factor is b_ck; b_ck is read for every
output of column k, where its factor is a_nc:

    ∂L/∂a_nc = Σ_k ∂L/∂y_nk b_ck          da = dy bᵀ
    ∂L/∂b_ck = Σ_n a_nc ∂L/∂y_nk          db = aᵀ dy

Both are matrix products again. The shapes alone leave no choice: the only product of dy (N, K) and
b (C, K) that gives (N, C) is dy bᵀ.
Common mistake: the factors in the wrong order, or a transpose forgotten. NumPy raises an error only
if the sizes differ.
"""

from typing import Any

import numpy as np


def forward(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """a (N, C), b (C, K) -> y (N, K), saved."""
    y = a @ b  # (N, K)
    return y, (a, b)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray]:
    """dy (N, K) -> da (N, C), db (C, K)."""
    a, b = saved
    # y = a @ b
    da = dy @ b.T  # (N, C)
    db = a.T @ dy  # (C, K)
    return da, db
