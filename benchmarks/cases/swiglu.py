"""SwiGLU: the product of two halves of the hidden layer of an MLP, one of them through SiLU."""

import numpy as np

from benchmarks.cases import Direction, Expected, unchecked
from benchmarks.cases.flops import EXP_FLOPS
from benchmarks.cases.gelu import TANH
from benchmarks.cases.rounding import TINY, gamma
from benchmarks.cases.shapes import MicroBatch, Sizes
from tinygpt_np.ops import swiglu

SWEPT = "F"


def sizes(part: MicroBatch) -> Sizes:
    """Return N rows of F channels for each half."""
    return {"N": part.rows, "F": 4 * part.width}


def positive_ends(_: np.random.Generator, halves: np.ndarray, **others: np.ndarray) -> None:
    """Make the gates positive at both ends, because SiLU of far below 0 is 0."""
    halves[[0, -1]] = np.abs(halves[[0, -1]])


def joined(halves: np.ndarray) -> np.ndarray:
    """Return halves (N, 2, F) as ops/ takes them, (N, 2F)."""
    return halves.reshape(len(halves), -1)


def forward_truth(halves: np.ndarray) -> dict[str, Expected]:
    """Bound the error of the gate, and that of three products."""
    gate, up = halves[:, 0], halves[:, 1]
    y, _ = unchecked(swiglu.forward)(joined(halves))
    bound = np.abs(gate * up) * error_of_sigmoid(gate) + np.abs(y) * gamma(3)
    return {"y": Expected(y, bound + TINY * (1 + np.abs(up)))}


def error_of_sigmoid(x: np.ndarray) -> np.ndarray:
    """Return the absolute error of ½ (1 + tanh(x/2)), which may also be 1/(1 + exp(-x))."""
    tanh = np.tanh(x / 2)
    return np.abs(tanh) * gamma(TANH) / 2 + (1 + tanh) / 2 * gamma(4)


def backward_truth(dy: np.ndarray, halves: np.ndarray) -> dict[str, Expected]:
    """Bound the error of the sigmoid s, which enters SiLU and s + x·s·(1 - s)."""
    gate, up = halves[:, 0], halves[:, 1]
    _, saved = unchecked(swiglu.forward)(joined(halves))
    dhalves = unchecked(swiglu.backward)(dy, saved).reshape(halves.shape)
    size, off = np.abs(gate), error_of_sigmoid(gate)
    sigmoid = (1 + np.tanh(gate / 2)) / 2
    bend = size * sigmoid * (1 - sigmoid)
    slope = off + size * off + (sigmoid + bend) * gamma(8)
    dgate = np.abs(dy * up) * (slope + TINY)
    dup = np.abs(dy) * (size * off + size * sigmoid * gamma(3) + TINY)
    return {"dhalves": Expected(dhalves, np.stack([dgate, dup], axis=1) + TINY)}


DIRECTIONS = {
    "forward": Direction(
        {"halves": "N2F"}, {"y": "NF"}, forward_truth, edit=positive_ends, outliers=5,
        # silu = gate / (1 + exp(-gate)): three and the exp. The product.
        flops=lambda size: (4 + EXP_FLOPS) * size.N * size.F,
    ),
    "backward": Direction(
        {"dy": "NF", "halves": "N2F"}, {"dhalves": "N2F"}, backward_truth,
        edit=positive_ends, outliers=5, known=("halves",),
        # The sigmoid: three and the exp. silu: 1. Its derivative: 3. The gradients: 1 and 2.
        flops=lambda size: (10 + EXP_FLOPS) * size.N * size.F,
    ),
}  # fmt: skip
