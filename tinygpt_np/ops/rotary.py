"""Rotary positions: rotate pairs of channels by angles that grow with the position.

    φ = t θ^{-i/P}   y_a = a cos φ - b sin φ   y_b = a sin φ + b cos φ      x, y: (..., T, H, 2P)

at position t for pair i, whose first and second channels are a and b in x, y_a and y_b in y. They
are channels i and i + P (Llama on Hugging Face) or, interleaved, 2i and 2i + 1 (the paper).
Lengths are kept, and the dot product of a query at t and a key at s depends on t - s only.

Derivation. a and b affect both y_a and y_b, with constant factors:

    ∂L/∂a = ∂L/∂y_a cos φ + ∂L/∂y_b sin φ
    ∂L/∂b = ∂L/∂y_b cos φ - ∂L/∂y_a sin φ

The matrix of the factors is transposed, as in every linear map; for a rotation this is the rotation
by -φ. Common mistakes: the signs of the sines as in forward, which rotates gradients by φ again;
the other pairing, with which a new model trains but pretrained weights give nonsense.
Source: Su et al., "RoFormer" (2021), eq. 15 and 34.
"""

from typing import Any

import numpy as np


def deinterleave(x: np.ndarray) -> np.ndarray:
    """Return the channels (..., 2P) in the order 0, 2, 4, …, 1, 3, 5, …; so pairs become halves."""
    return np.concatenate([x[..., ::2], x[..., 1::2]], axis=-1)


def interleave(x: np.ndarray) -> np.ndarray:
    """Return the channels (..., 2P) in the order 0, P, 1, P + 1, …; the inverse of deinterleave."""
    half = x.shape[-1] // 2
    return np.stack([x[..., :half], x[..., half:]], axis=-1).reshape(x.shape)


def forward(
    x: np.ndarray, positions: np.ndarray, theta: float = 10_000.0, interleaved: bool = False
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (..., T, H, 2P), positions (T,) integers, theta number, interleaved flag -> y (..., T, H, 2P), saved."""  # noqa: E501
    pair = np.arange(int(x.shape[-1]) // 2)  # (P,)
    frequencies = theta ** (-pair / len(pair))  # (P,)
    angles = positions[:, None, None] * frequencies  # (T, 1, P)
    cos = np.cos(angles).astype(x.dtype)  # (T, 1, P)
    sin = np.sin(angles).astype(x.dtype)  # (T, 1, P)
    halves = deinterleave(x) if interleaved else x  # (..., T, H, 2P)
    first, second = np.split(halves, 2, axis=-1)  # (..., T, H, P)
    first_cos = first * cos  # (..., T, H, P)
    first_sin = first * sin  # (..., T, H, P)
    second_cos = second * cos  # (..., T, H, P)
    second_sin = second * sin  # (..., T, H, P)
    turned_first = first_cos - second_sin  # (..., T, H, P)
    turned_second = first_sin + second_cos  # (..., T, H, P)
    turned = np.concatenate([turned_first, turned_second], axis=-1)  # (..., T, H, 2P)
    y = interleave(turned) if interleaved else turned  # (..., T, H, 2P)
    return y, (cos, sin, interleaved)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (..., T, H, 2P) -> dx (..., T, H, 2P)."""
    cos, sin, interleaved = saved
    # y = interleave(turned) if interleaved else turned
    dturned = deinterleave(dy) if interleaved else dy  # (..., T, H, 2P)
    # turned = np.concatenate([turned_first, turned_second], axis=-1)
    dturned_first, dturned_second = np.split(dturned, 2, axis=-1)  # (..., T, H, P)
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
    # first, second = np.split(halves, 2, axis=-1)
    dhalves = np.concatenate([dfirst, dsecond], axis=-1)  # (..., T, H, 2P)
    # halves = deinterleave(x) if interleaved else x
    dx = interleave(dhalves) if interleaved else dhalves  # (..., T, H, 2P)
    return dx
