"""The three matmuls of a linear layer, the one of an MLP that widens C to K = 4 C."""

from collections.abc import Callable

import numpy as np

from benchmarks.cases import (
    Arrays,
    Direction,
    Expected,
    Sizes,
    count,
    normal,
    outliers,
    shape_of,
    unchecked,
)
from benchmarks.cases.rounding import TINY, gamma
from tinygpt_np.ops import linear

SIZES = {
    "cpu": {"N": 192, "C": 128, "K": 512},
    "lecture": {"N": 512, "C": 384, "K": 1536},
    "gpt2": {"N": 128, "C": 768, "K": 3072},
    "awkward": {"N": 101, "C": 97, "K": 389},
}
SHAPES = {"x": "NC", "weight": "CK", "y": "NK", "dx": "NC", "dy": "NK", "dweight": "CK"}
forward, backward = unchecked(linear.forward), unchecked(linear.backward)


def product(
    factors: tuple[str, str],
    result: str,
    depth: str,
    multiply: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Direction:
    """Return the direction that multiplies two arrays; `depth` is the letter of the summed axis."""
    arrays = (*factors, result)

    def inputs(sizes: Sizes, rng: np.random.Generator) -> Arrays:
        shapes = {name: shape_of(SHAPES[name], sizes) for name in factors}
        return {name: outliers(normal(rng, *shape), rng, 20) for name, shape in shapes.items()}

    def truth(inputs: Arrays) -> dict[str, Expected]:
        """Bound the error by gamma(depth)·Σ|a||b|.

        Each product is rounded once, and depth - 1 times with the sum in any order; fused
        multiply-adds round less often.
        """
        a, b = (inputs[name].astype(np.float64) for name in factors)
        terms = a.shape[SHAPES[factors[0]].index(depth)]
        bound = gamma(terms) * multiply(np.abs(a), np.abs(b)) + TINY
        return {result: Expected(multiply(a, b), bound)}

    return Direction(
        inputs,
        {result: SHAPES[result]},
        truth,
        # For each element of the result `depth` products and depth - 1 sums.
        flops=lambda sizes: count(SHAPES[result], sizes) * (2 * sizes[depth] - 1),
        bytes=lambda sizes: 4 * sum(count(SHAPES[name], sizes) for name in arrays),
    )


def y_of(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return y (N, K) of x (N, C) and weight (C, K)."""
    return forward(x, weight)[0]


def dx_of(dy: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return dx (N, C) of dy (N, K) and weight (C, K); x is not needed and gets no columns."""
    return backward(dy, (dy[:, :0], weight, True))[0]


def dweight_of(x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Return dweight (C, K) of x (N, C) and dy (N, K); weight is not needed and gets no rows."""
    return backward(dy, (x, dy[:0], True))[1]


DIRECTIONS = {
    "forward": product(("x", "weight"), "y", "C", y_of),
    "dx": product(("dy", "weight"), "dx", "K", dx_of),
    "dweight": product(("x", "dy"), "dweight", "N", dweight_of),
}
