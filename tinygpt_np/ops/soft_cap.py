"""Soft cap: bound values smoothly to the interval from -cap to cap.

    y = cap · tanh(x / cap)      x, y: any shape

Near 0 it is the identity; large logits grow no further.

Derivation. With u = x / cap and tanh' = 1 - tanh², the two factors cap and 1/cap cancel:

    y' = cap · (1 - tanh² u) · 1/cap = 1 - (y / cap)²

Common mistake: one of the two factors forgotten, which changes the gradient by a constant factor
that a learning rate hides.
Source: Bello et al., "Neural Combinatorial Optimization with Reinforcement Learning" (2016),
section A.1; Gemma 2 (2024), section 2.
"""

from typing import Any

import numpy as np


def forward(x: np.ndarray, cap: float) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (...), cap number -> y (...), saved."""
    scaled = x / cap  # (...)
    tanh = np.tanh(scaled)  # (...)
    y = cap * tanh  # (...)
    return y, (tanh, cap)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (...) -> dx (...)."""
    tanh, cap = saved
    # y = cap * tanh
    dtanh = dy * cap  # (...)
    # tanh = np.tanh(scaled)
    dscaled = dtanh * (1 - tanh * tanh)  # (...)
    # scaled = x / cap
    dx = dscaled / cap  # (...)
    return dx
