"""ReLU, compiled. The derivation is in ops/relu.py."""

from typing import Any

import numpy as np

from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.kernels.elementwise import backward_loop, forward_loop
from tinygpt_np.compiled.simd.arrays import floats
from tinygpt_np.compiled.simd.vectors import where_positive


@strict
def value(x: Any) -> Any:
    """Return ReLU of a number or a Vector."""
    return where_positive(x, x)


@strict
def gradient(dy: Any, x: Any) -> Any:
    """Return dx: dy, or 0 where x <= 0."""
    return where_positive(x, dy)


# forward_values(x, y) and backward_values(dy, x, dx), all flat. dx may be dy.
forward_values, backward_values = forward_loop(value), backward_loop(gradient)


def forward(x: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (...) -> y (...), saved."""
    x = floats(x, "relu.forward: x")  # (...)
    y = np.empty_like(x)  # (...)
    forward_values(x.reshape(-1), y.reshape(-1))
    return y, (x,)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (...) -> dx (...)."""
    (x,) = saved
    dx = np.empty_like(x)  # (...)
    dy = floats(dy, "relu.backward: dy")  # (...)
    backward_values(dy.reshape(-1), x.reshape(-1), dx.reshape(-1))
    return dx
