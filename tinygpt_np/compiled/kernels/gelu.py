"""GELU, tanh form, compiled. The derivation is in ops/gelu.py.

The gate ½ (1 + tanh u) is written as the sigmoid 1/(1 + exp(-2u)), with gate' = 2 gate (1 - gate):
one exp, and no cancellation where tanh u is close to -1.
"""

from typing import Any

import numpy as np

from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.kernels.elementary import exp
from tinygpt_np.compiled.kernels.elementwise import backward_loop, forward_loop, operation
from tinygpt_np.compiled.simd.vectors import at_most, fma
from tinygpt_np.ops import gelu

# -2u = x (LINEAR + CUBIC x²), and its derivative is LINEAR + 3 CUBIC x².
LINEAR = np.float32(-2 * gelu.SQRT_2_OVER_PI)
CUBIC = np.float32(-2 * gelu.SQRT_2_OVER_PI * gelu.CUBIC)
ONE, MINUS_THREE_CUBIC = np.float32(1), np.float32(6 * gelu.SQRT_2_OVER_PI * gelu.CUBIC)
# For |x| >= 100 the gate is 0 or 1 for any x², but an infinite x² times a slope of 0 would be NaN.
LARGEST_SQUARE = np.float32(1e4)


@strict
def value(x: Any) -> Any:
    """Return GELU of a Vector."""
    return x / (ONE + exp(x * fma(CUBIC * x, x, LINEAR)))


@strict
def slope(x: Any) -> Any:
    """Return the derivative of GELU."""
    square = at_most(x * x, LARGEST_SQUARE)
    gate = ONE / (ONE + exp(x * fma(CUBIC, square, LINEAR)))
    return fma(gate * (ONE - gate) * x, fma(MINUS_THREE_CUBIC, square, -LINEAR), gate)


@strict
def gradient(dy: Any, x: Any) -> Any:
    """Return dx."""
    return dy * slope(x)


# forward_values(x, y) and backward_values(dy, x, dx), all flat. dx may be dy.
forward_values, backward_values = forward_loop(value), backward_loop(gradient)
forward, backward = operation(forward_values, backward_values)
