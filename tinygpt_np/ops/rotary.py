"""Rotary positions: rotate pairs of channels by angles that grow with the position.

    angle_ti = t θ^(-i/P),  i = 0 … P-1,  θ = 10,000      x, y: (..., T, H, 2P)
    y_first  = x_first cos - x_second sin
    y_second = x_first sin + x_second cos

The pairs are channels i and i + P (Llama on Hugging Face), or, interleaved, 2i and 2i + 1 (the
paper). A rotation keeps lengths, and the dot product of a query at position t with a key at
position s depends on t - s only.

Derivation. y is linear in x, so the gradient is multiplied by the transposed matrix. That of a
rotation is the rotation by minus the angle:

    ∂L/∂x_first  = ∂L/∂y_first cos + ∂L/∂y_second sin
    ∂L/∂x_second = ∂L/∂y_second cos - ∂L/∂y_first sin

Common mistakes: the other pairing, with which a model trains but pretrained weights give nonsense;
the sign of the sine kept, which rotates gradients by twice the angle too far.
Source: Su et al., "RoFormer" (2021), eq. 15 and 34.
"""

from typing import Any

import numpy as np


def split_pairs(x: np.ndarray, interleaved: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the second channel of each pair, (..., P) and (..., P), of (..., 2P)."""
    half = x.shape[-1] // 2
    return (x[..., ::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])


def merge_pairs(first: np.ndarray, second: np.ndarray, interleaved: bool) -> np.ndarray:
    """Return the channels (..., 2P) of pairs; the inverse of split_pairs."""
    shape = (*first.shape[:-1], 2 * first.shape[-1])
    return np.stack([first, second], axis=-1 if interleaved else -2).reshape(shape)


def forward(
    x: np.ndarray, positions: np.ndarray, theta: float = 10_000.0, interleaved: bool = False
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (..., T, H, 2P), positions (T,) integers, theta number, interleaved flag -> y (..., T, H, 2P), saved."""  # noqa: E501
    pair = np.arange(x.shape[-1] // 2)  # (P,)
    frequencies = theta ** (-pair / len(pair))  # (P,)
    angles = positions[:, None, None] * frequencies  # (T, 1, P)
    cos = np.cos(angles).astype(x.dtype)  # (T, 1, P)
    sin = np.sin(angles).astype(x.dtype)  # (T, 1, P)
    first, second = split_pairs(x, interleaved)  # (..., T, H, P)
    first_cos = first * cos  # (..., T, H, P)
    first_sin = first * sin  # (..., T, H, P)
    second_cos = second * cos  # (..., T, H, P)
    second_sin = second * sin  # (..., T, H, P)
    turned_first = first_cos - second_sin  # (..., T, H, P)
    turned_second = first_sin + second_cos  # (..., T, H, P)
    y = merge_pairs(turned_first, turned_second, interleaved)  # (..., T, H, 2P)
    return y, (cos, sin, interleaved)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (..., T, H, 2P) -> dx (..., T, H, 2P)."""
    cos, sin, interleaved = saved
    # y = merge_pairs(turned_first, turned_second, interleaved)
    dturned_first, dturned_second = split_pairs(dy, interleaved)  # (..., T, H, P)
    # turned_second = first_sin + second_cos
    dfirst_sin = dturned_second  # (..., T, H, P)
    dsecond_cos = dturned_second  # (..., T, H, P)
    # turned_first = first_cos - second_sin
    dfirst_cos = dturned_first  # (..., T, H, P)
    dsecond_sin = -dturned_first  # (..., T, H, P)
    # second_sin = second * sin
    dsecond = dsecond_sin * sin  # (..., T, H, P)
    # second_cos = second * cos
    dsecond += dsecond_cos * cos  # (..., T, H, P)
    # first_sin = first * sin
    dfirst = dfirst_sin * sin  # (..., T, H, P)
    # first_cos = first * cos
    dfirst += dfirst_cos * cos  # (..., T, H, P)
    # first, second = split_pairs(x, interleaved)
    dx = merge_pairs(dfirst, dsecond, interleaved)  # (..., T, H, 2P)
    return dx
