"""Squared ReLU of each element of the hidden layer of an MLP."""

import numpy as np

from benchmarks.cases import Direction, Expected, unchecked
from benchmarks.cases.rounding import TINY, gamma
from benchmarks.cases.shapes import MicroBatch, Sizes
from tinygpt_np.ops import relu_squared

SWEPT = "P"


def sizes(part: MicroBatch) -> Sizes:
    """Return P elements, those of the hidden layer."""
    return {"P": part.rows * 4 * part.width}


def positive_ends(_: np.random.Generator, hidden: np.ndarray, **others: np.ndarray) -> None:
    """Make hidden positive at both ends, because others become 0."""
    hidden[[0, -1]] = np.abs(hidden[[0, -1]])


def forward_truth(hidden: np.ndarray) -> dict[str, Expected]:
    """Bound the error of a product."""
    y, _ = unchecked(relu_squared.forward)(hidden)
    return {"squares": Expected(y, y * gamma(2) + TINY)}


def backward_truth(dsquares: np.ndarray, hidden: np.ndarray) -> dict[str, Expected]:
    """Bound the error of a product; twice a number is exact."""
    dhidden = unchecked(relu_squared.backward)(dsquares, unchecked(relu_squared.forward)(hidden)[1])
    return {"dhidden": Expected(dhidden, np.abs(dhidden) * gamma(2) + TINY)}


DIRECTIONS = {
    "forward": Direction(
        {"hidden": "P"}, {"squares": "P"}, forward_truth, edit=positive_ends,
        # A comparison and a product.
        flops=lambda size: 2 * size.P,
    ),
    "backward": Direction(
        {"dsquares": "P", "hidden": "P"}, {"dhidden": "P"}, backward_truth,
        edit=positive_ends, known=("hidden",),
        # A comparison and two products.
        flops=lambda size: 3 * size.P,
    ),
}  # fmt: skip
