"""GELU, tanh form, compiled. The derivation is in ops/gelu.py.

The gate ½ (1 + tanh u) is written as the sigmoid 1/(1 + exp(-2u)), with gate' = 2 gate (1 - gate):
one exp, and where tanh u is close to -1 nothing cancels.
"""

from typing import Any

import numpy as np

from tinygpt_np.compiled.cache import kernel, strict
from tinygpt_np.compiled.kernels import elementary
from tinygpt_np.compiled.simd.arrays import floats
from tinygpt_np.compiled.simd.vectors import LANES, at_most, fma, load_vector, store_vector
from tinygpt_np.ops import gelu

exp = elementary.exp
# -2u = x (LINEAR + CUBIC x²), and its derivative is LINEAR + 3 CUBIC x².
LINEAR = np.float32(-2 * gelu.SQRT_2_OVER_PI)
CUBIC = np.float32(-2 * gelu.SQRT_2_OVER_PI * gelu.CUBIC)
ONE, MINUS_THREE_CUBIC = np.float32(1), np.float32(6 * gelu.SQRT_2_OVER_PI * gelu.CUBIC)
# From |x| = 100 on the gate is 0 or 1 whatever x² is; an infinite x² times a slope of 0 is NaN.
LARGEST_SQUARE = np.float32(1e4)
VECTOR = 4 * LANES


@strict
def value(x: Any) -> Any:
    """GELU(x), of a number or a Vector."""
    return x / (ONE + exp(x * fma(CUBIC * x, x, LINEAR)))


@strict
def slope(x: Any) -> Any:
    """GELU'(x)."""
    square = at_most(x * x, LARGEST_SQUARE)
    gate = ONE / (ONE + exp(x * fma(CUBIC, square, LINEAR)))
    return fma(gate * (ONE - gate) * x, fma(MINUS_THREE_CUBIC, square, -LINEAR), gate)


@kernel
def forward_values(x: Any, y: Any) -> None:
    """Writes GELU of each of x to y, both flat."""
    source, target, whole = x.ctypes.data, y.ctypes.data, x.size // LANES * LANES
    for place in range(0, 4 * whole, VECTOR):
        store_vector(target + place, value(load_vector(source + place)))
    for i in range(whole, x.size):
        y[i] = value(x[i])


@kernel
def backward_values(dy: Any, x: Any, dx: Any) -> None:
    """Writes dy · GELU'(x) to dx, all flat. dx may be dy, and nothing in between."""
    source, upstream, target = x.ctypes.data, dy.ctypes.data, dx.ctypes.data
    whole = x.size // LANES * LANES
    for place in range(0, 4 * whole, VECTOR):
        found = load_vector(upstream + place) * slope(load_vector(source + place))
        store_vector(target + place, found)
    for i in range(whole, x.size):
        dx[i] = dy[i] * slope(x[i])


def forward(x: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (...) -> y (...), saved."""
    x = floats(x, "gelu.forward: x")  # (...)
    y = np.empty_like(x)  # (...)
    forward_values(x.reshape(-1), y.reshape(-1))
    return y, (x,)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (...) -> dx (...)."""
    (x,) = saved
    dx = np.empty_like(x)  # (...)
    dy = floats(dy, "gelu.backward: dy")  # (...)
    backward_values(dy.reshape(-1), x.reshape(-1), dx.reshape(-1))
    return dx
