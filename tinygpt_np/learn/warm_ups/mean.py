"""Mean: average each row, and weight the averages.

    y_n = w_n 1/C Σ_c x_nc                x: (N, C)   w, y: (N,)

Derivation. The last step is a product: each factor gets dy times the other one. A mean is a sum
divided by the number of its terms, so each term has the factor 1/C:

    ∂L/∂mean_n = ∂L/∂y_n w_n
    ∂L/∂w_n    = ∂L/∂y_n mean_n
    ∂L/∂x_nc   = ∂L/∂mean_n / C           for every c

The number of terms is x.shape[1], the size of the axis that was averaged.
Common mistakes: the 1/C forgotten, so that gradients grow with the size of the data; and a division
by another number, such as x.shape[0] or x.size.
"""

from typing import Any

import numpy as np


def forward(x: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (N, C), weight (N,) -> y (N,), saved."""
    mean = x.mean(axis=1)  # (N,)
    y = mean * weight  # (N,)
    return y, (x, weight, mean)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray]:
    """dy (N,) -> dx (N, C), dweight (N,)."""
    x, weight, mean = saved
    # y = mean * weight
    dmean = dy * weight  # (N,)
    dweight = dy * mean  # (N,)
    # mean = x.mean(axis=1)
    dx = np.zeros_like(x) + dmean[:, None] / x.shape[1]  # (N, C)
    return dx, dweight
