"""Softmax: turn the last axis into a probability distribution.

    p_i = exp(x_i) / Σ_j exp(x_j)         x, p: (..., V)

The largest x is subtracted first, so that exp never overflows. The shift cancels in the quotient,
so no gradient flows through `largest` and it is treated as a constant.

Derivation of the closed form, one row, with δ_ij = 1 if i = j and 0 otherwise:

    ∂p_j/∂x_i = p_j (δ_ij - p_i)
    ∂L/∂x_i   = Σ_j ∂L/∂p_j p_j (δ_ij - p_i) = p_i (∂L/∂p_i - Σ_j ∂L/∂p_j p_j)

So dx is p times the deviation of dp from its p-weighted mean; every row of dx sums to zero.
Common mistake: dp · p · (1 - p), which uses only the diagonal of the Jacobian.
Source: "Let's build GPT" 00:54:42; makemore part 4, exercise 1.
"""

from typing import Any

import numpy as np


def forward(x: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (..., V) -> probs (..., V), saved. Rows sum to 1; -inf next to a finite value gives 0."""
    largest = np.real(x).max(axis=-1, keepdims=True)  # (..., 1)
    shifted = x - largest  # (..., V)
    exps = np.exp(shifted)  # (..., V)
    total = exps.sum(axis=-1, keepdims=True)  # (..., 1)
    probs = exps / total  # (..., V)
    return probs, (probs, total)


def backward_steps(dprobs: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dprobs (..., V) -> dx (..., V), line for line."""
    probs, total = saved
    exps = probs * total  # (..., V)
    # probs = exps / total
    dexps = dprobs / total  # (..., V)
    dtotal = -(dprobs * probs / total).sum(axis=-1, keepdims=True)  # (..., 1)
    # total = exps.sum(axis=-1, keepdims=True)
    dexps += dtotal  # (..., V)
    # exps = np.exp(shifted)
    dshifted = dexps * exps  # (..., V)
    # shifted = x - largest
    dx = dshifted  # (..., V)
    return dx


def backward(dprobs: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dprobs (..., V) -> dx (..., V), in closed form."""
    probs, _ = saved
    weighted_mean = (dprobs * probs).sum(axis=-1, keepdims=True)  # (..., 1)
    dx = probs * (dprobs - weighted_mean)  # (..., V)
    return dx
