"""Broadcast: scale each row by a number of its own and add the same bias to all rows.

    y_nc = x_nc s_n + b_c                 x, y: (N, C)   s: (N, 1)   b: (C,)

Derivation. s_n is read for every c, and b_c for every n. Each read contributes to the gradient, so
what was broadcast in the forward is summed in the backward, along the same axis:

    ∂L/∂b_c  = Σ_n ∂L/∂y_nc               db = the column sums of dy
    ∂L/∂s_n  = Σ_c ∂L/∂y_nc x_nc          ds = the row sums of dy · x, in the shape (N, 1)
    ∂L/∂x_nc = ∂L/∂y_nc s_n               dx = dy · s

A gradient has the shape of its value, and `keepdims=True` keeps the 1 of (N, 1).
Common mistakes: the sum forgotten, so that db is (N, C); and the sum without keepdims, so that ds
is (N,).
"""

from typing import Any

import numpy as np


def forward(
    x: np.ndarray, scale: np.ndarray, bias: np.ndarray
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (N, C), scale (N, 1), bias (C,) -> y (N, C), saved."""
    scaled = x * scale  # (N, C)
    y = scaled + bias  # (N, C)
    return y, (x, scale)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dy (N, C) -> dx (N, C), dscale (N, 1), dbias (C,)."""
    x, scale = saved
    # y = scaled + bias
    dscaled = dy  # (N, C)
    dbias = dy.sum(axis=0)  # (C,)
    # scaled = x * scale
    dx = dscaled * scale  # (N, C)
    dscale = (dscaled * x).sum(axis=1, keepdims=True)  # (N, 1)
    return dx, dscale, dbias
