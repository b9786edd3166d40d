"""RMS norm, compiled: of rows, and of the heads of queries and keys. See ops/rms_norm.py."""

import math
from typing import Any

import numpy as np

from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.simd.arrays import floats
from tinygpt_np.compiled.simd.vectors import (
    LANES,
    all_lanes,
    load,
    load_lanes,
    multiply_add,
    prefetch_ahead,
    prefetch_target_ahead,
    store_lanes,
    sum_of,
)

LARGEST = np.finfo(np.float32).max
ZERO, ONE = np.float32(0), np.float32(1)


@strict
def scale_of(x: Any, size: Any, epsilon: Any) -> Any:
    """Return 1/r of `size` numbers from an address on."""
    squares = all_lanes(ZERO)
    for i in range(0, size, LANES):
        prefetch_ahead(x + 4 * i)
        values = load_lanes(x + 4 * i, size - i)
        squares = multiply_add(values, values, squares)
    total = sum_of(squares)
    if not total <= LARGEST:
        return wide_scale_of(x, size, epsilon)
    return ONE / math.sqrt(total / np.float32(size) + np.float32(epsilon))


@strict
def wide_scale_of(x: Any, size: Any, epsilon: Any) -> Any:
    """Return 1/r, computed in float64 because squares overflow float32."""
    total = 0.0
    for i in range(size):
        total += np.float64(load(x + 4 * i)) ** 2
    return np.float32(1 / math.sqrt(total / size + epsilon))


@strict
def forward_rows(x: Any, weight: Any, epsilon: Any, y: Any, rstd: Any) -> None:
    """x (N, C), weight (C,) -> y (N, C), rstd = 1/r (N,)."""
    size, weights = x.shape[1], weight.ctypes.data
    for n in range(x.shape[0]):
        source, target = x[n].ctypes.data, y[n].ctypes.data
        scale = scale_of(source, size, epsilon)
        rstd[n] = scale
        for i in range(0, size, LANES):
            place, count = 4 * i, size - i
            prefetch_target_ahead(target + place)
            xhat = load_lanes(source + place, count) * scale
            store_lanes(target + place, xhat * load_lanes(weights + place, count), count)


@strict
def backward_rows(dy: Any, x: Any, weight: Any, rstd: Any, dx: Any, dweight: Any) -> None:
    """Add to dx (N, C) and dweight (C,). dy, x (N, C), weight (C,), rstd (N,)."""
    size, weights, sums = x.shape[1], weight.ctypes.data, dweight.ctypes.data
    for n in range(x.shape[0]):
        upstream, source, target = dy[n].ctypes.data, x[n].ctypes.data, dx[n].ctypes.data
        scale, products = rstd[n], all_lanes(ZERO)
        for i in range(0, size, LANES):
            place, count = 4 * i, size - i
            prefetch_ahead(source + place)
            prefetch_ahead(upstream + place)
            xhat, d = load_lanes(source + place, count) * scale, load_lanes(upstream + place, count)
            dxhat = d * load_lanes(weights + place, count)
            products = multiply_add(dxhat, xhat, products)
            total = multiply_add(d, xhat, load_lanes(sums + place, count))
            store_lanes(sums + place, total, count)
        along_xhat = sum_of(products) / np.float32(size)
        for i in range(0, size, LANES):
            place, count = 4 * i, size - i
            prefetch_target_ahead(target + place)
            xhat, d = load_lanes(source + place, count) * scale, load_lanes(upstream + place, count)
            found = (d * load_lanes(weights + place, count) - xhat * along_xhat) * scale
            store_lanes(target + place, load_lanes(target + place, count) + found, count)


@strict
def forward_heads(x: Any, heads: Any, size: Any, epsilon: Any, rstd: Any) -> None:
    """Normalize each head of the first heads·size columns of x (N, E), without a weight, in place.

    Writes rstd (N, heads), unless it is (0, 0).
    """
    for n in range(x.shape[0]):
        for head in range(heads):
            source = x[n].ctypes.data + 4 * head * size
            scale = scale_of(source, size, epsilon)
            if rstd.size:
                rstd[n, head] = scale
            for i in range(0, size, LANES):
                xhat = load_lanes(source + 4 * i, size - i) * scale
                store_lanes(source + 4 * i, xhat, size - i)


@strict
def backward_heads(dx: Any, xhat: Any, heads: Any, size: Any, rstd: Any) -> None:
    """Turn the gradient in dx (N, E) into that of the columns before forward_heads, in place.

    xhat (N, E) are the normalized columns. dx and xhat may both have been rotated since: rotations
    change neither their dot product nor, undone afterwards, the result.
    """
    for n in range(dx.shape[0]):
        for head in range(heads):
            place = 4 * head * size
            target, source, scale = (
                dx[n].ctypes.data + place,
                xhat[n].ctypes.data + place,
                rstd[n, head],
            )
            products = all_lanes(ZERO)
            for i in range(0, size, LANES):
                d, values = (
                    load_lanes(target + 4 * i, size - i),
                    load_lanes(source + 4 * i, size - i),
                )
                products = multiply_add(d, values, products)
            along_xhat = sum_of(products) / np.float32(size)
            for i in range(0, size, LANES):
                d, values = (
                    load_lanes(target + 4 * i, size - i),
                    load_lanes(source + 4 * i, size - i),
                )
                store_lanes(target + 4 * i, (d - values * along_xhat) * scale, size - i)


def forward(
    x: np.ndarray, weight: np.ndarray | None = None, epsilon: float = 1e-5
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (..., C), weight (C,) or None, epsilon number -> y (..., C), saved."""
    rows = floats(x, "rms_norm.forward: x").reshape(-1, x.shape[-1])  # (N, C)
    unweighted = weight is None
    scales = np.ones(x.shape[-1], np.float32)  # (C,)
    if weight is not None:
        scales = floats(weight, "rms_norm.forward: weight")  # (C,)
    y, rstd = np.empty_like(rows), np.empty(len(rows), np.float32)  # (N, C), (N,)
    forward_rows(rows, scales, float(epsilon), y, rstd)
    return y.reshape(x.shape), (rows, scales, rstd, unweighted)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray | None]:
    """dy (..., C) -> dx (..., C), dweight (C,) or None, in closed form."""
    rows, weight, rstd, unweighted = saved
    dx, dweight = np.zeros_like(rows), np.zeros_like(weight)  # (N, C), (C,)
    drows = floats(dy, "rms_norm.backward: dy").reshape(rows.shape)  # (N, C)
    backward_rows(drows, rows, weight, rstd, dx, dweight)
    return dx.reshape(dy.shape), None if unweighted else dweight
