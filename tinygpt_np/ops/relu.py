"""ReLU: positive values pass, all others become 0.

    y = x if x > 0, else 0      x, y: any shape

Derivation. y is x itself or a constant, so y' is 1 for x > 0 and 0 for x < 0:

    ∂L/∂x = ∂L/∂y if x > 0, else 0

At x = 0 there is no derivative; 0 is used, as in PyTorch. NaN passes, so that it stays visible.
Common mistake: a gradient that is cut where it is itself negative.
Source: Nair, Hinton, "Rectified Linear Units Improve Restricted Boltzmann Machines" (2010).
"""

from typing import Any

import numpy as np


def forward(x: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (...) -> y (...), saved."""
    passes = ~(np.real(x) <= 0)  # (...)
    y = np.where(passes, x, 0)  # (...)
    return y, (passes,)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (...) -> dx (...)."""
    (passes,) = saved
    # y = np.where(passes, x, 0)
    dx = np.where(passes, dy, 0)  # (...)
    return dx
