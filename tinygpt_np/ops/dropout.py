"""Dropout: random values are set to zero and the others scaled up to keep the mean.

    y = x · mask,   mask is 1/(1 - p) with probability 1 - p, and 0 otherwise       x, y: any shape

The mask is an argument and not drawn inside, so that gradient checks and resumed runs can replay
the same forward. No mask (None) keeps everything.

Derivation. Given the mask, y is linear in each x: ∂L/∂x = ∂L/∂y · mask, with the same mask.
Common mistakes: a new mask in the backward; the 1/(1 - p) in one direction only.
Source: Srivastava et al., "Dropout" (2014), in its inverted form; the lecture's part on scaling up.
"""

from typing import Any

import numpy as np


def draw_mask(
    shape: tuple[int, ...], p: float, rng: np.random.Generator, dtype: np.dtype[Any]
) -> np.ndarray:
    """Return a mask (shape) of zeros, with probability p in [0, 1), and 1/(1 - p)."""
    kept = rng.random(shape, dtype=np.float32) >= p  # (...)
    return kept.astype(dtype) / (1 - p)


def forward(x: np.ndarray, mask: np.ndarray | None = None) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (...), mask (...) or None -> y (...), saved."""
    y = x.copy() if mask is None else x * mask  # (...)
    return y, (mask,)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (...) -> dx (...)."""
    (mask,) = saved
    # y = x.copy() if mask is None else x * mask
    dx = dy.copy() if mask is None else dy * mask  # (...)
    return dx
