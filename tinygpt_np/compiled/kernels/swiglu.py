"""SwiGLU, compiled. The derivation is in ops/swiglu.py."""

from typing import Any

import numpy as np

from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.kernels import silu
from tinygpt_np.compiled.simd.arrays import floats
from tinygpt_np.compiled.simd.vectors import LANES, load_lanes, store_lanes


@strict
def forward_values(gate: Any, up: Any, y: Any) -> None:
    """y = silu(gate) · up, all flat."""
    gates, ups, target = gate.ctypes.data, up.ctypes.data, y.ctypes.data
    for i in range(0, y.size, LANES):
        place, count = 4 * i, y.size - i
        value = silu.value(load_lanes(gates + place, count)) * load_lanes(ups + place, count)
        store_lanes(target + place, value, count)


@strict
def forward_rows(x: Any, y: Any) -> None:
    """x (N, 2F) -> y (N, F)."""
    size = y.shape[1]
    for n in range(y.shape[0]):
        forward_values(x[n, :size], x[n, size:], y[n])


@strict
def backward_rows(dy: Any, x: Any, dx: Any) -> None:
    """dy (N, F), x (N, 2F) -> dx (N, 2F), which may be x."""
    size = dy.shape[1]
    half = 4 * size
    for n in range(dy.shape[0]):
        upstream, source, target = dy[n].ctypes.data, x[n].ctypes.data, dx[n].ctypes.data
        for i in range(0, size, LANES):
            place, count = 4 * i, size - i
            y, slope = silu.value_and_slope(load_lanes(source + place, count))
            up = load_lanes(source + half + place, count)
            gradient = load_lanes(upstream + place, count)
            store_lanes(target + place, gradient * up * slope, count)
            store_lanes(target + half + place, gradient * y, count)


def forward(x: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (..., 2F) -> y (..., F), saved."""
    x = floats(x, "swiglu.forward: x")  # (..., 2F)
    size = x.shape[-1] // 2
    y = np.empty((*x.shape[:-1], size), np.float32)  # (..., F)
    forward_rows(x.reshape(-1, 2 * size), y.reshape(-1, size))
    return y, (x,)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (..., F) -> dx (..., 2F)."""
    (x,) = saved
    dx, size = np.empty_like(x), dy.shape[-1]  # (..., 2F)
    dy = floats(dy, "swiglu.backward: dy")  # (..., F)
    backward_rows(dy.reshape(-1, size), x.reshape(-1, 2 * size), dx.reshape(-1, 2 * size))
    return dx
