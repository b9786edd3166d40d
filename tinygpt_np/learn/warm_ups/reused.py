"""Reused: a value that two lines read.

    square = x²   y = square · x          x, square, y: (N, C)

Derivation. x affects y in two ways: directly, as a factor of y, and through square. The total
derivative is the sum over both ways, and each is a line of the backward:

    as a factor of y      ∂L/∂y square
    through square        ∂L/∂square 2x,  with  ∂L/∂square = ∂L/∂y x
    dx                    ∂L/∂y (x² + 2x²) = ∂L/∂y 3x²,  the derivative of x³

The first part of the gradient sets it (`dx = …`), and each later part is added (`dx += …`). The
gradient is complete when all lines that read x have been reversed.
Common mistake: `dx = …` the second time, which overwrites the first part.
"""

from typing import Any

import numpy as np


def forward(x: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (N, C) -> y (N, C), saved."""
    square = x * x  # (N, C)
    y = square * x  # (N, C)
    return y, (x, square)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (N, C) -> dx (N, C)."""
    x, square = saved
    # y = square * x
    dsquare = dy * x  # (N, C)
    dx = dy * square  # (N, C)
    # square = x * x
    dx += dsquare * 2 * x  # (N, C)
    return dx
