"""GELU in the tanh form, of each element of the hidden layer of an MLP."""

import numpy as np

from benchmarks.cases import Direction, Expected, unchecked
from benchmarks.cases.flops import TANH_FLOPS
from benchmarks.cases.rounding import TINY, gamma
from benchmarks.cases.shapes import MicroBatch, Sizes
from tinygpt_np.ops import gelu

SWEPT = "P"
# Roundings of u, the argument of tanh: five operations, two constants and their product.
INNER = 8
# Roundings that a tanh counts as, if its error is below 4 ulp; an ulp is at most 2 U.
TANH = 8


def sizes(part: MicroBatch) -> Sizes:
    """Return P elements, those of the hidden layer."""
    return {"P": part.rows * 4 * part.width}


def positive_ends(_: np.random.Generator, x: np.ndarray, **others: np.ndarray) -> None:
    """Make x positive at both ends, because GELU of far below 0 is 0."""
    x[[0, -1]] = np.abs(x[[0, -1]])


def forward_truth(x: np.ndarray) -> dict[str, Expected]:
    """Bound the error; where tanh u is close to -1, 1 + tanh u consists of its error only."""
    y, (_, tanh) = unchecked(gelu.forward)(x)
    bound = np.abs(x) * error_of_tanh(x, tanh) / 2 + np.abs(y) * gamma(4)
    return {"y": Expected(y, bound + TINY)}


def error_of_tanh(x: np.ndarray, tanh: np.ndarray) -> np.ndarray:
    """Return the absolute error of tanh u: that of u times tanh' u, and its own."""
    inner = gelu.SQRT_2_OVER_PI * (np.abs(x) + gelu.CUBIC * np.abs(x**3))
    return (1 - tanh * tanh) * inner * gamma(INNER) + np.abs(tanh) * gamma(TANH)


def backward_truth(dy: np.ndarray, x: np.ndarray) -> dict[str, Expected]:
    """Bound the error of tanh u, which enters the gate and tanh² u, and of two terms that cancel.

    1 - tanh² u may also be computed from an exp or a cosh, with 12 roundings; its factors have 8.
    """
    _, saved = unchecked(gelu.forward)(x)
    dx = unchecked(gelu.backward)(dy, saved)
    tanh = saved[1]
    off = error_of_tanh(x, tanh)
    factor = np.abs(x) / 2 * gelu.SQRT_2_OVER_PI * (1 + 3 * gelu.CUBIC * x * x)
    gate = off / 2 + (1 + tanh) / 2 * gamma(8)
    bend = factor * (2 * np.abs(tanh) * off + (1 - tanh * tanh) * gamma(20))
    return {"dx": Expected(dx, np.abs(dy) * (gate + bend) + TINY)}


DIRECTIONS = {
    "forward": Direction(
        {"x": "P"}, {"y": "P"}, forward_truth, edit=positive_ends, outliers=5,
        # u: two products for x³, one with each constant, a sum. tanh. 1 +, half, times x.
        flops=lambda size: (8 + TANH_FLOPS) * size.P,
    ),
    "backward": Direction(
        {"dy": "P", "x": "P"}, {"dx": "P"}, backward_truth, edit=positive_ends, outliers=5,
        known=("x",),
        # tanh, and 7 for u and the gate. x/2·√(2/π)·(1 - tanh²)·(1 + 3·0.044715·x²), given
        # x²: 7. Then 2.
        flops=lambda size: (16 + TANH_FLOPS) * size.P,
    ),
}  # fmt: skip
