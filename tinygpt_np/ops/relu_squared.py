"""Squared ReLU: the square of positive values, 0 for all others.

    r = relu(x)   y = r²      x, y: any shape

Derivation of the closed form. r² is a product of r with itself, so its derivative 2r is the sum of
two equal terms; and where relu'(x) is not 1, r is 0 already:

    y' = 2 r relu'(x) = 2 r

In contrast to relu, the derivative exists at 0 too, where it is 0.
Common mistakes: the factor 2 forgotten; 2x, which lets the negative values pass.
Source: So et al., "Primer: Searching for Efficient Transformers" (2021), section 4.
"""

from typing import Any

import numpy as np

from tinygpt_np.ops import relu


def forward(x: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (...) -> y (...), saved."""
    rectified, saved_relu = relu.forward(x)  # (...)
    y = rectified * rectified  # (...)
    return y, (rectified, saved_relu)


def backward_steps(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (...) -> dx (...), line for line."""
    rectified, saved_relu = saved
    # y = rectified * rectified
    drectified = 2 * dy * rectified  # (...)
    # rectified, saved_relu = relu.forward(x)
    dx = relu.backward(drectified, saved_relu)  # (...)
    return dx


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (...) -> dx (...), in closed form."""
    rectified, _ = saved
    dx = 2 * dy * rectified  # (...)
    return dx
