"""Soft cap, compiled. The derivation is in ops/soft_cap.py.

The backward needs the capped values only, so the forward may be in place.
"""

from typing import Any

import numpy as np

from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.kernels.elementary import tanh
from tinygpt_np.compiled.simd.arrays import floats
from tinygpt_np.compiled.simd.vectors import LANES, load_lanes, store_lanes

ONE = np.float32(1)


@strict
def forward_values(x: Any, cap: Any, y: Any) -> None:
    """y = cap · tanh(x / cap), both flat. y may be x."""
    source, target, bound = x.ctypes.data, y.ctypes.data, np.float32(cap)
    for i in range(0, x.size, LANES):
        place, count = 4 * i, x.size - i
        store_lanes(target + place, bound * tanh(load_lanes(source + place, count) / bound), count)


@strict
def backward_values(dy: Any, y: Any, cap: Any, dx: Any) -> None:
    """dx = dy · (1 - (y/cap)²), all flat. dx may be dy."""
    upstream, source, target, bound = dy.ctypes.data, y.ctypes.data, dx.ctypes.data, np.float32(cap)
    for i in range(0, y.size, LANES):
        place, count = 4 * i, y.size - i
        tanh = load_lanes(source + place, count) / bound
        slope = ONE - tanh * tanh
        store_lanes(target + place, load_lanes(upstream + place, count) * slope, count)


def forward(x: np.ndarray, cap: float) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (...), cap number -> y (...), saved."""
    x = floats(x, "soft_cap.forward: x")  # (...)
    y = np.empty_like(x)  # (...)
    forward_values(x.reshape(-1), float(cap), y.reshape(-1))
    return y, (y.copy(), float(cap))


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (...) -> dx (...)."""
    y, cap = saved
    dx = np.empty_like(y)  # (...)
    dy = floats(dy, "soft_cap.backward: dy")  # (...)
    backward_values(dy.reshape(-1), y.reshape(-1), cap, dx.reshape(-1))
    return dx
