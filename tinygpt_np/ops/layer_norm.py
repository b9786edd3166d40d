"""Layer norm: normalize each row to mean 0 and variance 1, then scale and shift per channel.

    μ = mean(x)   s = √(mean((x - μ)²) + ε)   x̂ = (x - μ) / s   y = x̂ w + b      x, y: (N, C)

The variance is the biased one (divided by C), ε = 1e-5, as in GPT-2.

Derivation of the closed form, one row, g = dy·w = ∂L/∂x̂. x_i affects x̂ in three ways: directly
at i, through μ, and through s:

    ∂x̂_j/∂x_i = (δ_ij - 1/C - x̂_i x̂_j / C) / s
    ∂L/∂x_i   = (g_i - mean(g) - x̂_i mean(g x̂)) / s

The two means are the effect of μ and s: dx has no component along the row of ones and (except for
ε) none along x̂, because moving x in these directions does not change y. Common mistake: the mean
terms forgotten, dx = g/s.
Source: Ba, Kiros, Hinton, "Layer Normalization" (2016), eq. 3; the lecture's part on layer norm.
"""

from typing import Any

import numpy as np

EPSILON = 1e-5


def forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None, epsilon: float = EPSILON
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (N, C), weight (C,), bias (C,) or None, epsilon number -> y (N, C), saved."""
    mean = x.mean(axis=-1, keepdims=True)  # (N, 1)
    centered = x - mean  # (N, C)
    square = centered * centered  # (N, C)
    var = square.mean(axis=-1, keepdims=True)  # (N, 1)
    padded_var = var + epsilon  # (N, 1)
    std = np.sqrt(padded_var)  # (N, 1)
    xhat = centered / std  # (N, C)
    scaled = xhat * weight  # (N, C)
    y = scaled if bias is None else scaled + bias  # (N, C)
    return y, (xhat, std, weight, bias is None)


def backward_steps(
    dy: np.ndarray, saved: tuple[Any, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """dy (N, C) -> dx (N, C), dweight (C,), dbias (C,) or None, line for line."""
    xhat, std, weight, unbiased = saved
    centered = xhat * std  # (N, C)
    # y = scaled if bias is None else scaled + bias
    dscaled = dy  # (N, C)
    dbias = None if unbiased else dy.sum(axis=0)  # (C,)
    # scaled = xhat * weight
    dxhat = dscaled * weight  # (N, C)
    dweight = (dscaled * xhat).sum(axis=0)  # (C,)
    # xhat = centered / std
    dcentered = dxhat / std  # (N, C)
    dstd = -(dxhat * xhat / std).sum(axis=-1, keepdims=True)  # (N, 1)
    # std = np.sqrt(padded_var)
    dpadded_var = dstd / (2 * std)  # (N, 1)
    # padded_var = var + epsilon
    dvar = dpadded_var  # (N, 1)
    # var = square.mean(axis=-1, keepdims=True)
    dsquare = np.zeros_like(xhat) + dvar / xhat.shape[-1]  # (N, C)
    # square = centered * centered
    dcentered += 2 * centered * dsquare  # (N, C)
    # centered = x - mean
    dx = dcentered.copy()  # (N, C)
    dmean = -dcentered.sum(axis=-1, keepdims=True)  # (N, 1)
    # mean = x.mean(axis=-1, keepdims=True)
    dx += dmean / xhat.shape[-1]  # (N, C)
    return dx, dweight, dbias


def backward(
    dy: np.ndarray, saved: tuple[Any, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """dy (N, C) -> dx (N, C), dweight (C,), dbias (C,) or None, in closed form."""
    xhat, std, weight, unbiased = saved
    dbias = None if unbiased else dy.sum(axis=0)  # (C,)
    dweight = (dy * xhat).sum(axis=0)  # (C,)
    dxhat = dy * weight  # (N, C)
    along_ones = dxhat.mean(axis=-1, keepdims=True)  # (N, 1)
    along_xhat = (dxhat * xhat).mean(axis=-1, keepdims=True)  # (N, 1)
    dx = (dxhat - along_ones - xhat * along_xhat) / std  # (N, C)
    return dx, dweight, dbias
