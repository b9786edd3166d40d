"""Exp: the logarithm of a sum of exponentials.

    y_n = log Σ_c exp(x_nc)               x: (N, C)   y: (N,)

Derivation. The derivative of log t is 1/t; a sum gives its gradient to each term; and exp is its
own derivative:

    ∂L/∂total_n = ∂L/∂y_n / total_n
    ∂L/∂exps_nc = ∂L/∂total_n             for every c
    ∂L/∂x_nc    = ∂L/∂exps_nc exps_nc

Together, dx_nc = dy_n exps_nc / Σ_j exps_nj: the gradient is divided among the elements of a row in
the proportions of softmax. The result of exp is saved, so exp is not computed twice.
Common mistake: dexps in place of dexps · exps, as if exp had the derivative 1.
"""

from typing import Any

import numpy as np


def forward(x: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (N, C) -> y (N,), saved."""
    exps = np.exp(x)  # (N, C)
    total = exps.sum(axis=1)  # (N,)
    y = np.log(total)  # (N,)
    return y, (exps, total)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (N,) -> dx (N, C)."""
    exps, total = saved
    # y = np.log(total)
    dtotal = dy / total  # (N,)
    # total = exps.sum(axis=1)
    dexps = np.zeros_like(exps) + dtotal[:, None]  # (N, C)
    # exps = np.exp(x)
    dx = dexps * exps  # (N, C)
    return dx
