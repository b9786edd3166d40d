"""The three products of a linear layer: here of the one in an MLP that widens C to K = 4 C."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.rounding import TINY, gamma
from benchmarks.tasks import Arrays, Direction, Sizes, Truth, normal, outliers, plain
from tinygpt_np.ops import linear

SIZES = {
    "cpu": {"N": 192, "C": 128, "K": 512},
    "lecture": {"N": 512, "C": 384, "K": 1536},
    "gpt2": {"N": 128, "C": 768, "K": 3072},
    "awkward": {"N": 101, "C": 97, "K": 389},
}
# The letters of an array's sizes.
SHAPES = {"x": "NC", "weight": "CK", "y": "NK", "dx": "NC", "dy": "NK", "dweight": "CK"}
forward, backward = plain(linear.forward), plain(linear.backward)


@dataclass(frozen=True)
class Product:
    """of: the result from the two factors. depth: the letter of what is summed over."""

    factors: tuple[str, str]
    result: str
    depth: str
    of: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def inputs(self, sizes: Sizes, rng: np.random.Generator) -> Arrays:
        return {name: outliers(normal(rng, *shape(name, sizes)), rng, 20) for name in self.factors}

    def outputs(self, sizes: Sizes) -> dict[str, tuple[int, ...]]:
        return {self.result: shape(self.result, sizes)}

    def truth(self, inputs: Arrays) -> dict[str, Truth]:
        """In a sum of `depth` products each is rounded once itself and up to depth - 1 times with
        the sum, in any order; with fused multiply-adds less often. So the error is within
        gamma(depth)·Σ|a||b|, and Σ|a||b| is the product of the absolute values."""
        a, b = (inputs[name].astype(np.float64) for name in self.factors)
        depth = a.shape[SHAPES[self.factors[0]].index(self.depth)]
        bound = gamma(depth) * self.of(np.abs(a), np.abs(b)) + TINY
        return {self.result: Truth(self.of(a, b), bound)}

    def flops(self, sizes: Sizes) -> int:
        """For each number of the result `depth` products and depth - 1 sums."""
        return math.prod(shape(self.result, sizes)) * (2 * sizes[self.depth] - 1)

    def bytes(self, sizes: Sizes) -> int:
        return 4 * sum(math.prod(shape(name, sizes)) for name in (*self.factors, self.result))

    def direction(self) -> Direction:
        return Direction(self.inputs, self.outputs, self.truth, self.flops, self.bytes)


def shape(name: str, sizes: Sizes) -> tuple[int, ...]:
    return tuple(sizes[letter] for letter in SHAPES[name])


def y_of(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return forward(x, weight)[0]


def dx_of(dy: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """x is given no columns: it has no part in dx."""
    return backward(dy, (dy[:, :0], weight, True))[0]


def dweight_of(x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """weight is given no rows: it has no part in dweight."""
    return backward(dy, (x, dy[:0], True))[1]


DIRECTIONS = {
    "forward": Product(("x", "weight"), "y", "C", y_of).direction(),
    "dx": Product(("dy", "weight"), "dx", "K", dx_of).direction(),
    "dweight": Product(("x", "dy"), "dweight", "N", dweight_of).direction(),
}
