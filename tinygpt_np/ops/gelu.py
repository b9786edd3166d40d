"""GELU, tanh form: a smooth gate that passes large values and suppresses small ones.

    gate = ½ (1 + tanh(√(2/π) (x + 0.044715 x³)))      y = x · gate      x, y: any shape

It approximates x Φ(x) (see gelu_exact.py) to about 5e-4; GPT-2 was trained with this form.

Derivation. With u = √(2/π) (x + 0.044715 x³) and tanh' = 1 - tanh²:

    y' = gate + x · ½ (1 - tanh² u) · √(2/π) (1 + 3 · 0.044715 x²)

The first term comes from x as the gated value, the second from x as the input of the gate.
Common mistakes: the second term forgotten; the derivative of the exact form, wrong by up to 1e-3,
which a falling loss does not reveal.
Source: Hendrycks, Gimpel, "Gaussian Error Linear Units" (2016), section 2.
"""

from typing import Any

import numpy as np

SQRT_2_OVER_PI = (2 / np.pi) ** 0.5
CUBIC = 0.044715


def forward(x: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (...) -> y (...), saved."""
    square = x * x  # (...)
    cube = square * x  # (...)
    bend = CUBIC * cube  # (...)
    bent = x + bend  # (...)
    inner = SQRT_2_OVER_PI * bent  # (...)
    tanh = np.tanh(inner)  # (...)
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
    # tanh = np.tanh(inner)
    dinner = dtanh * (1 - tanh * tanh)  # (...)
    # inner = SQRT_2_OVER_PI * bent
    dbent = dinner * SQRT_2_OVER_PI  # (...)
    # bent = x + bend
    dx += dbent  # (...)
    dbend = dbent  # (...)
    # bend = CUBIC * cube
    dcube = dbend * CUBIC  # (...)
    # cube = square * x
    dsquare = dcube * x  # (...)
    dx += dcube * x * x  # (...)
    # square = x * x
    dx += 2 * dsquare * x  # (...)
    return dx
