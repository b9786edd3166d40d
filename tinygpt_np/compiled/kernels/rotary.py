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
def turn(
    x: Any, heads: Any, size: Any, cos: Any, sin: Any, interleaved: Any, direction: Any, first: Any
) -> None:
    """Rotate heads·size columns of x (N, E) as forward_heads does, or back."""
    pairs = size // 2
    for n in range(x.shape[0]):
        t, row = (first + n) % cos.shape[0], x[n].ctypes.data
        for i in range(0, pairs, LANES):
            count = pairs - i
            c = load_lanes(cos[t].ctypes.data + 4 * i, count)
            s = load_lanes(sin[t].ctypes.data + 4 * i, count) * direction
            if interleaved:  # Channels of pairs in two vectors, one after the other.
                for head in range(heads):
                    left = row + 4 * (head * size + 2 * i)
                    right = left + 4 * LANES
                    a, b = load_lanes(left, 2 * count), load_lanes(right, 2 * count - LANES)
                    one, other = even_lanes(a, b), odd_lanes(a, b)
                    a, b = one * c - other * s, one * s + other * c
                    store_lanes(left, lower_pairs(a, b), 2 * count)
                    store_lanes(right, upper_pairs(a, b), 2 * count - LANES)
            else:
                for head in range(heads):
                    left = row + 4 * (head * size + i)
                    right = left + 4 * pairs
                    one, other = load_lanes(left, count), load_lanes(right, count)
                    store_lanes(left, one * c - other * s, count)
                    store_lanes(right, one * s + other * c, count)


@strict
def forward_heads(
    x: Any, heads: Any, size: Any, cos: Any, sin: Any, interleaved: Any, first: Any
) -> None:
    """Rotate the first heads·size columns of x (N, E) in place.

    Row n is rotated by the angles of row (first + n) mod T of cos and sin (T, P).
    """
    turn(x, heads, size, cos, sin, interleaved, FORWARD, first)


@strict
def backward_heads(
    dx: Any, heads: Any, size: Any, cos: Any, sin: Any, interleaved: Any, first: Any
) -> None:
    """Turn the gradient of rotated columns in dx (N, E) into that of the columns before."""
    turn(dx, heads, size, cos, sin, interleaved, BACKWARD, first)


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
