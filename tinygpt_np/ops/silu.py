"""SiLU, also called Swish: each value times its sigmoid.

    gate = σ(x) = 1 / (1 + exp(-x)) = ½ (1 + tanh(x/2))      y = x · gate      x, y: any shape

The form with tanh never overflows.

Derivation. With tanh' = 1 - tanh² and the two places in which x occurs:

    y' = gate + x · ½ (1 - tanh²(x/2)) · ½ = gate + x gate (1 - gate)

The first term comes from x as the gated value, the second from x as the input of the gate.
Common mistakes: the second term forgotten; gate (1 - gate), the derivative of the gate alone.
Source: Hendrycks, Gimpel, "Gaussian Error Linear Units" (2016), section 2, where it has its name;
Ramachandran, Zoph, Le, "Searching for Activation Functions" (2017).
"""

from typing import Any

import numpy as np


def forward(x: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (...) -> y (...), saved."""
    half = x / 2  # (...)
    tanh = np.tanh(half)  # (...)
    raised = 1 + tanh  # (...)
    gate = raised / 2  # (...)
    y = x * gate  # (...)
    return y, (x, tanh)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (...) -> dx (...)."""
    x, tanh = saved
    gate = (1 + tanh) / 2  # (...)
    # y = x * gate
    dx = dy * gate  # (...)
    dgate = dy * x  # (...)
    # gate = raised / 2
    draised = dgate / 2  # (...)
    # raised = 1 + tanh
    dtanh = draised  # (...)
    # tanh = np.tanh(half)
    dhalf = dtanh * (1 - tanh * tanh)  # (...)
    # half = x / 2
    dx += dhalf / 2  # (...)
    return dx
