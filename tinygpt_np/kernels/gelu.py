"""GELU, tanh form, compiled. The derivation is in ops/gelu.py.

The gate ½ (1 + tanh u) is written as the sigmoid 1/(1 + exp(-2u)), with gate' = 2 gate (1 - gate):
one exp, and where tanh u is close to -1 nothing cancels.
"""

from typing import Any

import numpy as np

from tinygpt_np.compiling import kernel
from tinygpt_np.kernels import elementary
from tinygpt_np.kernels.arrays import floats
from tinygpt_np.ops import gelu

exp = elementary.exp
# -2u = x (LINEAR + CUBIC x²), and its derivative is LINEAR + 3 CUBIC x².
LINEAR = np.float32(-2 * gelu.SQRT_2_OVER_PI)
CUBIC = np.float32(-2 * gelu.SQRT_2_OVER_PI * gelu.CUBIC)
ONE, THREE = np.float32(1), np.float32(3)


@kernel
def forward_values(x: Any, y: Any) -> None:
    """Writes GELU of each of x to y, both flat."""
    for i in range(x.size):
        y[i] = x[i] / (ONE + exp(x[i] * (LINEAR + CUBIC * x[i] * x[i])))


@kernel
def backward_values(dy: Any, x: Any, dx: Any) -> None:
    """Writes dy · GELU'(x) to dx, all flat. dx may be dy, and nothing in between."""
    # The work is done in place: with dy and dx in one loop, the compiler would run it element by
    # element wherever they are the same memory.
    if dx.ctypes.data != dy.ctypes.data:
        for i in range(x.size):
            dx[i] = dy[i]
    for i in range(x.size):
        square = x[i] * x[i]
        gate = ONE / (ONE + exp(x[i] * (LINEAR + CUBIC * square)))
        slope = -(LINEAR + THREE * CUBIC * square)
        dx[i] *= gate + gate * (ONE - gate) * x[i] * slope


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
