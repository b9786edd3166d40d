"""SiLU, compiled. The derivation is in ops/silu.py."""

from typing import Any

import numpy as np

from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.kernels.elementary import exp
from tinygpt_np.compiled.kernels.elementwise import backward_loop, forward_loop, operation
from tinygpt_np.compiled.simd.vectors import fma

ZERO, ONE = np.float32(0), np.float32(1)


@strict
def value_and_slope(x: Any) -> Any:
    """Return SiLU of a Vector, and its derivative."""
    gate = ONE / (ONE + exp(ZERO - x))
    y = x * gate
    return y, fma(y, ONE - gate, gate)


@strict
def value(x: Any) -> Any:
    """Return SiLU."""
    return value_and_slope(x)[0]


@strict
def gradient(dy: Any, x: Any) -> Any:
    """Return dx."""
    return dy * value_and_slope(x)[1]


# forward_values(x, y) and backward_values(dy, x, dx), all flat. dx may be dy.
forward_values, backward_values = forward_loop(value), backward_loop(gradient)
forward, backward = operation(forward_values, backward_values)
