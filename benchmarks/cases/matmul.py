"""The three matmuls of a linear layer, the one of an MLP that widens C to K = 4 C."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import Direction, Expected, unchecked
from benchmarks.cases.rounding import TINY, gamma
from benchmarks.cases.shapes import MicroBatch, Sizes
from tinygpt_np.ops import linear

SWEPT = "NCK"
SHAPES = {"x": "NC", "weight": "CK", "y": "NK", "dx": "NC", "dy": "NK", "dweight": "CK"}
forward, backward = unchecked(linear.forward), unchecked(linear.backward)


def sizes(part: MicroBatch) -> Sizes:
    """Return N rows, C channels and K = 4 C outputs."""
    return {"N": part.rows, "C": part.width, "K": 4 * part.width}


def product(
    factors: tuple[str, str], result: str, depth: str,
    multiply: Callable[[np.ndarray, np.ndarray], np.ndarray], known: tuple[str, ...] = (),
) -> Direction:  # fmt: skip
    """Return the direction that multiplies two arrays; `depth` is the letter of the summed axis."""
    axis = SHAPES[factors[0]].index(depth)

    def truth(**inputs: np.ndarray) -> dict[str, Expected]:
        """Bound the error: a product is rounded once, and depth - 1 times with the sum."""
        a, b = inputs.values()
        bound = gamma(a.shape[axis]) * multiply(np.abs(a), np.abs(b)) + TINY
        return {result: Expected(multiply(a, b), bound)}

    def flops(size: Any) -> int:
        """Return `depth` products and depth - 1 sums for each element of the result."""
        rows, columns, terms = (getattr(size, letter) for letter in SHAPES[result] + depth)
        return rows * columns * (2 * terms - 1)

    inputs = {name: SHAPES[name] for name in factors}
    return Direction(inputs, {result: SHAPES[result]}, truth, flops, known=known)


DIRECTIONS = {
    "forward": product(("x", "weight"), "y", "C", lambda x, weight: forward(x, weight)[0],
                       known=("weight",)),  # llm.c keeps it transposed.
    # dx needs no x, which gets no columns, and dweight no weight, which gets no rows.
    "dx": product(("dy", "weight"), "dx", "K",
                  lambda dy, weight: backward(dy, (dy[:, :0], weight, True))[0]),
    "dweight": product(("x", "dy"), "dweight", "N",
                       lambda x, dy: backward(dy, (x, dy[:0], True))[1]),
}  # fmt: skip
