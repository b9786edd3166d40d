"""Squared ReLU, compiled. The derivation is in ops/relu_squared.py."""

from typing import Any

import numpy as np

from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.kernels.elementwise import backward_loop, forward_loop, operation
from tinygpt_np.compiled.simd.vectors import where_positive

TWO = np.float32(2)


@strict
def value(x: Any) -> Any:
    """Return relu(x)² of a Vector."""
    return where_positive(x, x * x)


@strict
def gradient(dy: Any, x: Any) -> Any:
    """Return dx = 2 dy x, or 0 where x <= 0."""
    return where_positive(x, TWO * dy * x)


# forward_values(x, y) and backward_values(dy, x, dx), all flat. dx may be dy.
forward_values, backward_values = forward_loop(value), backward_loop(gradient)
forward, backward = operation(forward_values, backward_values)
