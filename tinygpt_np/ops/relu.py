"""ReLU: positive values pass, all others become 0.

    y = x if x > 0, else 0      x, y: any shape

Derivation. Given which values pass, y is linear: dy passes where x did, and is 0 elsewhere. At
x = 0 there is no derivative; it is taken as 0, as in PyTorch. NaN passes and stays visible.

Common mistake: the sign of dy, or of y after later changes, decides in place of the sign of x.
Source: Nair, Hinton, "Rectified Linear Units Improve Restricted Boltzmann Machines" (2010).
"""

from typing import Any

import numpy as np


def forward(x: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (...) -> y (...), saved."""
    off = np.real(x) <= 0  # (...)
    y = np.where(off, 0, x)  # (...)
    return y, (off,)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (...) -> dx (...)."""
    (off,) = saved
    # y = np.where(off, 0, x)
    dx = np.where(off, 0, dy)  # (...)
    return dx
