"""Rotary positions: the queries and keys of all heads, rotated in place by tables of angles.

The backward is the same with the opposite angles. The pairs of channels are the halves of a head,
or, interleaved, neighbours.
"""

from functools import partial

import numpy as np

from benchmarks.cases import Direction, Expected
from benchmarks.cases.rounding import TINY, gamma
from benchmarks.cases.shapes import MicroBatch, Sizes

SWEPT = "R"
THETA = 10_000.0


def sizes(part: MicroBatch) -> Sizes:
    """Return B sequences of T tokens with H heads, of queries and of keys, of R pairs each."""
    pairs = part.width // part.heads // 2
    return {"B": part.batch, "T": part.time, "H": 2 * part.heads, "R": pairs}


def with_tables(
    _: np.random.Generator, cos: np.ndarray, sin: np.ndarray, **others: np.ndarray
) -> None:
    """Make cos and sin those of the positions."""
    T, R = cos.shape
    positions, pair = np.arange(T, dtype=np.float64), np.arange(R, dtype=np.float64)
    angles = positions[:, None] * np.float64(THETA) ** (-pair / R)
    cos[...], sin[...] = np.cos(angles), np.sin(angles)


def rotated(
    axis: int, cos: np.ndarray, sin: np.ndarray, **channels: np.ndarray
) -> dict[str, Expected]:
    """Return the truth if the two channels of a pair are along an axis; two terms may cancel."""
    ((name, x),) = channels.items()
    first, second = np.moveaxis(x, axis, 0)  # (B, T, H, R)
    c, s = cos[:, None], sin[:, None]  # (T, 1, R)
    y = first * c - second * s, first * s + second * c
    first, second, c, s = (np.abs(each) for each in (first, second, c, s))
    sizes = first * c + second * s, first * s + second * c
    return {name: Expected(np.stack(y, axis), np.stack(sizes, axis) * gamma(2) + TINY)}


def direction(name: str, shape: str, axis: int) -> Direction:
    """Return the rotation of pairs of channels along an axis."""
    return Direction(
        {name: shape, "cos": "TR", "sin": "TR"}, {}, partial(rotated, axis), edit=with_tables,
        changed=(name,), known=("cos", "sin"),
        # Four products, a difference and a sum for each pair.
        flops=lambda size: 6 * size.B * size.T * size.H * size.R,
    )  # fmt: skip


DIRECTIONS = {
    "halves": direction("x", "BTH2R", -2),
    "interleaved": direction("pairs", "BTHR2", -1),
}
