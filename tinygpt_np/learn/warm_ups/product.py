"""Product: multiply two arrays element by element.

    y_nc = a_nc b_nc                      a, b, y: (N, C)

Derivation. a_nc is read once, for y_nc, where its factor is b_nc; and the other way round:

    ∂L/∂a_nc = ∂L/∂y_nc b_nc              da = dy · b
    ∂L/∂b_nc = ∂L/∂y_nc a_nc              db = dy · a

The gradient of one factor needs the value of the other one, so forward saves both. Saved values
take most of the memory in training.
Common mistake: each factor times its own value, da = dy · a, which has the right shape.
"""

from typing import Any

import numpy as np


def forward(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """a (N, C), b (N, C) -> y (N, C), saved."""
    y = a * b  # (N, C)
    return y, (a, b)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray]:
    """dy (N, C) -> da (N, C), db (N, C)."""
    a, b = saved
    # y = a * b
    da = dy * b  # (N, C)
    db = dy * a  # (N, C)
    return da, db
