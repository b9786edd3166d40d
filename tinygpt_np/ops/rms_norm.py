"""RMS norm: divide each row by its root mean square, then scale per channel.

    r = √(mean(x²) + ε)   x̂ = x / r   y = x̂ w      x, y: (..., C)

It is layer norm without the mean and the bias. No weight (None) is a weight of ones; so a model
normalizes its queries and keys.

Derivation of the closed form, one row, g = dy·w = ∂L/∂x̂. x_i affects x̂ directly at i and through r:

    ∂r/∂x_i   = x_i / (C r) = x̂_i / C
    ∂x̂_j/∂x_i = δ_ij / r - x_j / r² · ∂r/∂x_i = (δ_ij - x̂_i x̂_j / C) / r
    ∂L/∂x_i   = Σ_j g_j ∂x̂_j/∂x_i = (g_i - x̂_i mean(g x̂)) / r

Except for ε, dx has no component along x, because scaling x does not change y.
Common mistakes: the mean term forgotten, dx = g/r; a sum over the row for its mean.
Source: Zhang, Sennrich, "Root Mean Square Layer Normalization" (2019), eq. 4; Llama adds the ε.
"""

from typing import Any

import numpy as np


def forward(
    x: np.ndarray, weight: np.ndarray | None = None, epsilon: float = 1e-5
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (..., C), weight (C,) or None, epsilon number -> y (..., C), saved."""
    square = x * x  # (..., C)
    mean_square = square.mean(axis=-1, keepdims=True)  # (..., 1)
    padded = mean_square + epsilon  # (..., 1)
    rms = np.sqrt(padded)  # (..., 1)
    xhat = x / rms  # (..., C)
    y = xhat if weight is None else xhat * weight  # (..., C)
    return y, (xhat, rms, weight)


def backward_steps(dy: np.ndarray, saved: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray | None]:
    """dy (..., C) -> dx (..., C), dweight (C,) or None, line for line."""
    xhat, rms, weight = saved
    rows = tuple(range(xhat.ndim))[:-1]
    x = xhat * rms  # (..., C)
    # y = xhat if weight is None else xhat * weight
    dxhat = dy if weight is None else dy * weight  # (..., C)
    dweight = None if weight is None else (dy * xhat).sum(axis=rows)  # (C,)
    # xhat = x / rms
    dx = dxhat / rms  # (..., C)
    drms = -(dxhat * xhat / rms).sum(axis=-1, keepdims=True)  # (..., 1)
    # rms = np.sqrt(padded)
    dpadded = drms / (2 * rms)  # (..., 1)
    # padded = mean_square + epsilon
    dmean_square = dpadded  # (..., 1)
    # mean_square = square.mean(axis=-1, keepdims=True)
    dsquare = np.zeros_like(xhat) + dmean_square / xhat.shape[-1]  # (..., C)
    # square = x * x
    dx += 2 * x * dsquare  # (..., C)
    return dx, dweight


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray | None]:
    """dy (..., C) -> dx (..., C), dweight (C,) or None, in closed form."""
    xhat, rms, weight = saved
    rows = tuple(range(xhat.ndim))[:-1]
    dweight = None if weight is None else (dy * xhat).sum(axis=rows)  # (C,)
    dxhat = dy if weight is None else dy * weight  # (..., C)
    along_xhat = (dxhat * xhat).mean(axis=-1, keepdims=True)  # (..., 1)
    dx = (dxhat - xhat * along_xhat) / rms  # (..., C)
    return dx, dweight
