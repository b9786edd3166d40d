"""Layer norm, compiled. The derivation is in ops/layer_norm.py."""

import math
from typing import Any

import numpy as np

from tinygpt_np.compiled.cache import kernel, strict
from tinygpt_np.compiled.kernels.elementary import rounded_product
from tinygpt_np.compiled.simd.arrays import floats
from tinygpt_np.ops import layer_norm

EPSILON = layer_norm.EPSILON
LARGEST = np.finfo(np.float32).max
ZERO, ONE = np.float32(0), np.float32(1)


@strict
def mean_and_rstd(x: Any, n: Any, epsilon: Any) -> Any:
    """Return mean and 1/s of row n, computed in float64 because squares overflow float32."""
    size, total, square = x.shape[1], 0.0, 0.0
    for c in range(size):
        total += x[n, c]
    mu = total / size
    for c in range(size):
        square += (x[n, c] - mu) ** 2
    return np.float32(mu), np.float32(1 / math.sqrt(square / size + epsilon))


@kernel
def forward_rows(
    x: Any, weight: Any, bias: Any, epsilon: Any, y: Any, mean: Any, rstd: Any
) -> None:
    """x (N, C), weight (C,), bias (C,) or (0,) -> y (N, C), mean and rstd = 1/s (N,)."""
    size, added = np.float32(x.shape[1]), np.float32(epsilon)
    for n in range(x.shape[0]):
        total = ZERO
        for c in range(x.shape[1]):
            total += x[n, c]
        mu = total / size
        # A second pass, because mean(x²) - mean(x)² cancels if the mean is large.
        square = ZERO
        for c in range(x.shape[1]):
            centered = x[n, c] - mu
            square += centered * centered
        scale = ONE / math.sqrt(square / size + added)
        if not square <= LARGEST:
            mu, scale = mean_and_rstd(x, n, epsilon)
        mean[n], rstd[n] = mu, scale
        if bias.size:
            for c in range(x.shape[1]):
                y[n, c] = (x[n, c] - mu) * scale * weight[c] + bias[c]
        else:
            for c in range(x.shape[1]):
                y[n, c] = (x[n, c] - mu) * scale * weight[c]


@kernel
def backward_rows(
    dy: Any, x: Any, weight: Any, mean: Any, rstd: Any, dx: Any, dweight: Any, dbias: Any
) -> None:
    """Add to dx (N, C), dweight (C,) and dbias (C,) or (0,). mean, rstd (N,)."""
    size = np.float32(x.shape[1])
    for n in range(x.shape[0]):
        mu, scale = mean[n], rstd[n]
        along_ones = along_xhat = ZERO
        for c in range(x.shape[1]):
            xhat = (x[n, c] - mu) * scale
            dxhat = rounded_product(dy[n, c], weight[c])
            along_ones += dxhat
            along_xhat += dxhat * xhat
            dweight[c] += dy[n, c] * xhat
        along_ones /= size
        along_xhat /= size
        for c in range(dbias.size):
            dbias[c] += dy[n, c]
        for c in range(x.shape[1]):
            xhat = (x[n, c] - mu) * scale
            dxhat = rounded_product(dy[n, c], weight[c])
            dx[n, c] += (dxhat - along_ones - xhat * along_xhat) * scale


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
