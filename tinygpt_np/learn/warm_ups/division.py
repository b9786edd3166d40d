"""Division: divide each row by a number of its own.

    y_nc = a_nc / b_n                     a, y: (N, C)   b: (N, 1)

Derivation. The numerator has the factor 1/b_n. The derivative of 1/b is -1/b², and b_n is read for
every c, so its gradient is a sum:

    ∂L/∂a_nc = ∂L/∂y_nc / b_n
    ∂L/∂b_n  = -Σ_c ∂L/∂y_nc a_nc / b_n²  = -Σ_c ∂L/∂y_nc y_nc / b_n

The second form needs y, which is known, in place of a and of a square.
Common mistakes: the minus sign forgotten; and b in place of b².
"""

from typing import Any

import numpy as np


def forward(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """a (N, C), b (N, 1) in (0.5, 2) -> y (N, C), saved."""
    y = a / b  # (N, C)
    return y, (a, b, y)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray]:
    """dy (N, C) -> da (N, C), db (N, 1)."""
    _, b, y = saved
    # y = a / b
    da = dy / b  # (N, C)
    db = -(dy * y / b).sum(axis=1, keepdims=True)  # (N, 1)
    return da, db
