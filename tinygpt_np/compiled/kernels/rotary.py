"""Rotary positions, compiled. The derivation is in ops/rotary.py."""

from typing import Any

import numpy as np

from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.simd.arrays import floats, integers
from tinygpt_np.compiled.simd.vectors import (
    LANES,
    even_lanes,
    load_lanes,
    lower_pairs,
    odd_lanes,
    store_lanes,
    upper_pairs,
)

FORWARD, BACKWARD = np.float32(1), np.float32(-1)


def tables(positions: np.ndarray, pairs: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """positions (T,) integers -> the cos and the sin of their angles (T, P), float32."""
    frequencies = theta ** (-np.arange(pairs) / pairs)  # (P,)
    angles = positions[:, None] * frequencies  # (T, P)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


@strict
def turn(x: Any, pairs: Any, cos: Any, sin: Any, interleaved: Any, direction: Any) -> None:
    """Rotate the pairs of one head by their angles, or back; cos and sin are addresses, like x."""
    for i in range(0, pairs, LANES):
        count = pairs - i
        # The channels of some pairs are two vectors: of both halves, or one after the other.
        left = x + 8 * i if interleaved else x + 4 * i
        right = left + 4 * LANES if interleaved else left + 4 * pairs
        many = min(2 * count, LANES) if interleaved else count
        more = 2 * count - LANES if interleaved else count
        a, b = load_lanes(left, many), load_lanes(right, more)
        first, second = (even_lanes(a, b), odd_lanes(a, b)) if interleaved else (a, b)
        c, s = load_lanes(cos + 4 * i, count), load_lanes(sin + 4 * i, count) * direction
        a, b = first * c - second * s, first * s + second * c
        if interleaved:
            a, b = lower_pairs(a, b), upper_pairs(a, b)
        store_lanes(left, a, many)
        store_lanes(right, b, more)


@strict
def forward_heads(
    x: Any, heads: Any, size: Any, cos: Any, sin: Any, interleaved: Any, first: Any
) -> None:
    """Rotate the first heads·size columns of x (N, E) in place.

    Row n is rotated by the angles of row (first + n) mod T of cos and sin (T, P).
    """
    for n in range(x.shape[0]):
        t, row = (first + n) % cos.shape[0], x[n].ctypes.data
        for head in range(heads):
            turn(row + 4 * head * size, size // 2, cos[t].ctypes.data, sin[t].ctypes.data,
                 interleaved, FORWARD)  # fmt: skip


@strict
def backward_heads(
    dx: Any, heads: Any, size: Any, cos: Any, sin: Any, interleaved: Any, first: Any
) -> None:
    """Turn the gradient of rotated columns in dx (N, E) into that of the columns before."""
    for n in range(dx.shape[0]):
        t, row = (first + n) % cos.shape[0], dx[n].ctypes.data
        for head in range(heads):
            turn(row + 4 * head * size, size // 2, cos[t].ctypes.data, sin[t].ctypes.data,
                 interleaved, BACKWARD)  # fmt: skip


def forward(
    x: np.ndarray, positions: np.ndarray, theta: float = 10_000.0, interleaved: bool = False
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (..., T, H, 2P), positions (T,) integers, theta number, interleaved flag -> y (..., T, H, 2P), saved."""  # noqa: E501
    y = floats(x, "rotary.forward: x").copy()  # (..., T, H, 2P)
    heads, size = y.shape[-2:]
    positions = integers(positions, "rotary.forward: positions")  # (T,)
    cos, sin = tables(positions, size // 2, theta)  # (T, P)
    forward_heads(y.reshape(-1, heads * size), heads, size, cos, sin, bool(interleaved), 0)
    return y, (cos, sin, bool(interleaved))


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (..., T, H, 2P) -> dx (..., T, H, 2P)."""
    cos, sin, interleaved = saved
    dx = floats(dy, "rotary.backward: dy").copy()  # (..., T, H, 2P)
    heads, size = dx.shape[-2:]
    backward_heads(dx.reshape(-1, heads * size), heads, size, cos, sin, interleaved, 0)
    return dx
