"""Layer norm, compiled. The derivation is in ops/layer_norm.py."""

import math
from typing import Any

import numpy as np

from tinygpt_np.compiled.cache import inner, strict
from tinygpt_np.compiled.simd.arrays import floats
from tinygpt_np.compiled.simd.vectors import (
    LANES,
    all_lanes,
    first_lanes,
    load_lanes,
    load_vector,
    multiply_add,
    prefetch_ahead,
    prefetch_target_ahead,
    store_lanes,
    sum_of,
)
from tinygpt_np.ops import layer_norm

EPSILON = layer_norm.EPSILON
LARGEST = np.finfo(np.float32).max
VECTOR = 4 * LANES
ZERO, ONE = np.float32(0), np.float32(1)


@inner
def mean_and_rstd(x: Any, n: Any, epsilon: Any) -> Any:
    """Return mean and 1/s of row n, computed in float64 because squares overflow float32."""
    size, total, square = x.shape[1], 0.0, 0.0
    for c in range(size):
        total += x[n, c]
    mu = total / size
    for c in range(size):
        square += (x[n, c] - mu) ** 2
    return np.float32(mu), np.float32(1 / math.sqrt(square / size + epsilon))


@strict
def forward_rows(
    x: Any, weight: Any, bias: Any, epsilon: Any, y: Any, mean: Any, rstd: Any
) -> None:
    """x (N, C), weight (C,), bias (C,) or (0,) -> y (N, C), mean and rstd = 1/s (N,)."""
    columns, weights, shifts = x.shape[1], weight.ctypes.data, bias.ctypes.data
    size, added, whole = np.float32(columns), np.float32(epsilon), columns // LANES * LANES
    for n in range(x.shape[0]):
        source, target = x[n].ctypes.data, y[n].ctypes.data
        rest = load_lanes(source + 4 * whole, columns - whole)
        sums = rest
        for place in range(0, 4 * whole, VECTOR):
            prefetch_ahead(source + place)
            sums = sums + load_vector(source + place)
        mu = sum_of(sums) / size
        # A second pass, because mean(x²) - mean(x)² cancels if the mean is large.
        rest = first_lanes(rest - mu, columns - whole, all_lanes(ZERO))
        squares = rest * rest
        for place in range(0, 4 * whole, VECTOR):
            prefetch_target_ahead(target + place)
            centered = load_vector(source + place) - mu
            squares = multiply_add(centered, centered, squares)
        square = sum_of(squares)
        scale = ONE / math.sqrt(square / size + added)
        if not square <= LARGEST:
            mu, scale = mean_and_rstd(x, n, epsilon)
        mean[n], rstd[n] = mu, scale
        for i in range(0, columns, LANES):
            place, count = 4 * i, columns - i
            xhat = (load_lanes(source + place, count) - mu) * scale
            shift = load_lanes(shifts + place, bias.size - i)  # Zeros without a bias.
            found = multiply_add(xhat, load_lanes(weights + place, count), shift)
            store_lanes(target + place, found, count)


@strict
def backward_rows(
    dy: Any, x: Any, weight: Any, mean: Any, rstd: Any, dx: Any, dweight: Any, dbias: Any
) -> None:
    """Add to dx (N, C), dweight (C,) and dbias (C,) or (0,). mean, rstd (N,)."""
    columns, weights = x.shape[1], weight.ctypes.data
    size, along_weight, along_bias = np.float32(columns), dweight.ctypes.data, dbias.ctypes.data
    for n in range(x.shape[0]):
        upstream, source, target = dy[n].ctypes.data, x[n].ctypes.data, dx[n].ctypes.data
        mu, scale, ones, products = mean[n], rstd[n], all_lanes(ZERO), all_lanes(ZERO)
        for i in range(0, columns, LANES):
            place, count = 4 * i, columns - i
            prefetch_ahead(upstream + place)
            prefetch_ahead(source + place)
            d = load_lanes(upstream + place, count)
            xhat = (load_lanes(source + place, count) - mu) * scale
            dxhat = d * load_lanes(weights + place, count)
            ones = ones + dxhat
            products = multiply_add(dxhat, xhat, products)
            total = multiply_add(d, xhat, load_lanes(along_weight + place, count))
            store_lanes(along_weight + place, total, count)
            if dbias.size:
                store_lanes(along_bias + place, load_lanes(along_bias + place, count) + d, count)
        along_ones, along_xhat = sum_of(ones) / size, sum_of(products) / size
        for i in range(0, columns, LANES):
            place, count = 4 * i, columns - i
            prefetch_target_ahead(target + place)
            xhat = (load_lanes(source + place, count) - mu) * scale
            dxhat = load_lanes(upstream + place, count) * load_lanes(weights + place, count)
            found = (dxhat - along_ones - xhat * along_xhat) * scale
            store_lanes(target + place, load_lanes(target + place, count) + found, count)


def forward(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    epsilon: float = EPSILON,
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (N, C), weight (C,), bias (C,) or None, epsilon number -> y (N, C), saved."""
    x = floats(x, "layer_norm.forward: x")  # (N, C)
    weight = floats(weight, "layer_norm.forward: weight")  # (C,)
    shift = np.empty(0, np.float32)  # (0,)
    if bias is not None:
        shift = floats(bias, "layer_norm.forward: bias")  # (C,)
    y = np.empty_like(x)  # (N, C)
    mean, rstd = np.empty((2, len(x)), np.float32)  # (N,)
    forward_rows(x, weight, shift, float(epsilon), y, mean, rstd)
    return y, (x, weight, mean, rstd, bias is None)


def backward(
    dy: np.ndarray, saved: tuple[Any, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """dy (N, C) -> dx (N, C), dweight (C,), dbias (C,) or None, in closed form."""
    x, weight, mean, rstd, unbiased = saved
    dx, dweight = np.zeros_like(x), np.zeros_like(weight)  # (N, C), (C,)
    dbias = np.zeros(0 if unbiased else weight.size, np.float32)  # (C,) or (0,)
    dy = floats(dy, "layer_norm.backward: dy")  # (N, C)
    backward_rows(dy, x, weight, mean, rstd, dx, dweight, dbias)
    return dx, dweight, None if unbiased else dbias
