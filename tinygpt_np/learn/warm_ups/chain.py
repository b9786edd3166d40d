"""Chain: three scalar steps, one after the other.

    y = sin(3x)²                          x, y: ()

Derivation. Let L be the loss, and dv = ∂L/∂v for every value v. Each step has one input, so the
gradient of the input is the gradient of the output times the derivative of the step:

    y = sine²              ∂y/∂sine = 2 sine                 dsine = dy · 2 sine
    sine = sin(tripled)    ∂sine/∂tripled = cos(tripled)     dtripled = dsine · cos(tripled)
    tripled = 3x           ∂tripled/∂x = 3                   dx = dtripled · 3

The last step comes first. dy, the upstream gradient, is given: it is the product of the derivatives
of all steps after y. A derivative is taken at the value that the step read, so forward saves it.
Common mistakes: dy forgotten, which is right only if y is the loss itself; and a derivative taken
at the wrong value, such as cos(x).
"""

from typing import Any

import numpy as np


def forward(x: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x () -> y (), saved."""
    tripled = 3 * x  # ()
    sine = np.sin(tripled)  # ()
    y = sine**2  # ()
    return y, (tripled, sine)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy () -> dx ()."""
    tripled, sine = saved
    # y = sine**2
    dsine = dy * 2 * sine  # ()
    # sine = np.sin(tripled)
    dtripled = dsine * np.cos(tripled)  # ()
    # tripled = 3 * x
    dx = dtripled * 3  # ()
    return dx
