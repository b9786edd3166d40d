"""Softmax, compiled. The derivation is in ops/softmax.py."""

from typing import Any

import numpy as np

from tinygpt_np.compiled.cache import kernel
from tinygpt_np.compiled.kernels.elementary import exp, maximum
from tinygpt_np.compiled.simd.arrays import floats

MINUS_INFINITY = np.float32(-np.inf)
ZERO, ONE = np.float32(0), np.float32(1)


@kernel
def forward_rows(x: Any, probs: Any) -> None:
    """Write the softmax of each row of x (N, V) to probs (N, V)."""
    for n in range(x.shape[0]):
        largest = MINUS_INFINITY
        for v in range(x.shape[1]):
            largest = maximum(largest, x[n, v])
        total = ZERO
        for v in range(x.shape[1]):
            probs[n, v] = exp(x[n, v] - largest)
            total += probs[n, v]
        inverse = ONE / total
        for v in range(x.shape[1]):
            probs[n, v] *= inverse


@kernel
def backward_rows(dprobs: Any, probs: Any, dx: Any) -> None:
    """Write dx (N, V) = probs · (dprobs - their weighted mean)."""
    for n in range(probs.shape[0]):
        weighted_mean = ZERO
        for v in range(probs.shape[1]):
            weighted_mean += dprobs[n, v] * probs[n, v]
        for v in range(probs.shape[1]):
            dx[n, v] = probs[n, v] * (dprobs[n, v] - weighted_mean)


def forward(x: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (..., V) -> probs (..., V), saved. Rows sum to 1; -inf next to a finite value gives 0."""
    rows = floats(x, "softmax.forward: x").reshape(-1, x.shape[-1])  # (N, V)
    probs = np.empty_like(rows)  # (N, V)
    forward_rows(rows, probs)
    probs = probs.reshape(x.shape)  # (..., V)
    return probs, (probs,)


def backward(dprobs: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dprobs (..., V) -> dx (..., V), in closed form."""
    (probs,) = saved
    rows = probs.reshape(-1, probs.shape[-1])  # (N, V)
    dx = np.empty_like(rows)  # (N, V)
    backward_rows(floats(dprobs, "softmax.backward: dprobs").reshape(rows.shape), rows, dx)
    return dx.reshape(probs.shape)
