"""GELU, exact form, compiled. The derivation is in ops/gelu_exact.py."""

from typing import Any

import numpy as np

from tinygpt_np.compiled.cache import kernel
from tinygpt_np.compiled.kernels.elementary import erf, exp
from tinygpt_np.compiled.kernels.elementwise import operation

SQRT_HALF = np.float32(0.5**0.5)
DENSITY_AT_ZERO = np.float32((2 * np.pi) ** -0.5)
HALF, ONE = np.float32(0.5), np.float32(1)


@kernel
def forward_values(x: Any, y: Any) -> None:
    """y = GELU(x), both flat."""
    for i in range(x.size):
        y[i] = HALF * x[i] * (ONE + erf(SQRT_HALF * x[i]))


@kernel
def backward_values(dy: Any, x: Any, dx: Any) -> None:
    """dx = dy · GELU'(x), all flat. dx may be dy, but must not overlap it otherwise."""
    # In place, because a loop that reads dy and writes dx is not vectorised if they are the same
    # memory.
    if dx.ctypes.data != dy.ctypes.data:
        for i in range(x.size):
            dx[i] = dy[i]
    for i in range(x.size):
        cdf = HALF * (ONE + erf(SQRT_HALF * x[i]))
        density = DENSITY_AT_ZERO * exp(-HALF * x[i] * x[i])
        dx[i] *= cdf + x[i] * density


forward, backward = operation(forward_values, backward_values)
