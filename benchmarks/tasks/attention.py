"""Causal attention of many heads, as in ops/attention.py, without dropout.

qkv (B, T, 3, H, D), y and dy (B, T, H, D), dqkv like qkv: in memory these are the rows (N, 3C) and
(N, C) that training has, N = B·T and C = H·D; so cut, an array says how it is to be read.
"""

import numpy as np

from benchmarks.rounding import EXP, TINY, gamma
from benchmarks.tasks import Arrays, Direction, Sizes, Truth, normal, outliers, plain
from tinygpt_np.ops import attention

SIZES = {
    "cpu": {"B": 3, "T": 64, "H": 4, "D": 32},
    "lecture": {"B": 2, "T": 256, "H": 6, "D": 64},
    "gpt2": {"B": 2, "T": 64, "H": 12, "D": 64},
    "awkward": {"B": 2, "T": 61, "H": 3, "D": 37},
}
# So that of a row in twelve one key has nine tenths, and scores are still known to some 1e-5.
FACTOR = 10


def shape_of(sizes: Sizes) -> tuple[int, int, int, int]:
    return sizes["B"], sizes["T"], sizes["H"], sizes["D"]


def rows_with_outliers(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    return outliers(normal(rng, count, width), rng, FACTOR)


def forward_inputs(sizes: Sizes, rng: np.random.Generator) -> Arrays:
    B, T, H, D = shape_of(sizes)
    return {"qkv": rows_with_outliers(rng, B * T, 3 * H * D).reshape(B, T, 3, H, D)}


def backward_inputs(sizes: Sizes, rng: np.random.Generator) -> Arrays:
    B, T, H, D = shape_of(sizes)
    dy = rows_with_outliers(rng, B * T, H * D).reshape(B, T, H, D)
    return {**forward_inputs(sizes, rng), "dy": dy}


def forward_outputs(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    return {"y": shape_of(sizes)}


def backward_outputs(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    B, T, H, D = shape_of(sizes)
    return {"dqkv": (B, T, 3, H, D)}


class Rounded:
    """What float32 may make of the probabilities and of y, from the sizes of all that is added."""

    def __init__(self, qkv: np.ndarray) -> None:
        self.qkv = qkv.transpose(2, 0, 3, 1, 4)  # (3, B, H, T, D)
        q, k, _ = self.qkv
        self.time, self.size = q.shape[2:]
        self.scale = self.size**-0.5
        visible = np.tri(self.time, dtype=bool)
        scores = np.where(visible, q @ k.mT * self.scale, -np.inf)
        largest = np.maximum.accumulate(scores, axis=-1)
        exps = np.exp(scores - largest[..., -1:])
        self.probs = exps / exps.sum(axis=-1, keepdims=True)
        # A sum of T terms; whoever goes through the keys one by one scales it whenever a larger
        # score turns up, by an exponential.
        rises = (np.diff(largest, axis=-1) > 0).sum(axis=-1, keepdims=True)
        self.sums = self.time + (EXP + 1) * rises + 3
        # What goes into an exponential: a score, of D products and the scale; less the largest, or
        # the logarithm of the total, all of which are rounded.
        size = np.where(visible, np.abs(scores), 0)
        moved = gamma(self.size + 3) * self.scale * np.where(visible, np.abs(q) @ np.abs(k).mT, 0)
        moved += gamma(6) * (size + size.max(axis=-1, keepdims=True) + np.log(self.time) + 1)
        # It moves its own term, and as a mean over the row the total.
        spread = np.exp(moved) * (self.probs * np.exp(moved)).sum(axis=-1, keepdims=True)
        relative = spread * (1 + gamma(2 * EXP + self.sums)) - 1
        self.probs_off = np.where(visible, self.probs * relative + TINY, 0)
        # With a probability so large, a term of y is off by less than `terms` times the value.
        self.probs_most = self.probs + self.probs_off
        self.terms = self.probs_off + gamma(self.sums) * self.probs_most

    def y(self) -> np.ndarray:
        return self.terms @ np.abs(self.qkv[2]) + TINY

    def dqkv(self, dy: np.ndarray) -> np.ndarray:
        q, k, v = self.qkv
        dprobs, most = dy @ v.mT, np.abs(dy) @ np.abs(v).mT
        # delta is Σ_s probs·dprobs, or else Σ_d dy·y: the same products, added in another order.
        delta = (self.probs * dprobs).sum(axis=-1, keepdims=True)
        terms = self.terms + gamma(self.size + 1) * self.probs_most
        delta_off = (terms * most).sum(axis=-1, keepdims=True)
        differences = np.abs(dprobs - delta)
        differences_off = gamma(self.size) * most + delta_off
        dscores = self.probs * differences
        dscores_off = self.probs_off * differences + self.probs_most * differences_off
        # The difference, the product, the scale; then T products and sums.
        dscores_off += gamma(self.time + 5) * (dscores + dscores_off)
        dv_off = self.probs_off + gamma(self.time + 1) * self.probs_most
        every = self.scale * dscores_off
        parts = every @ np.abs(k), every.mT @ np.abs(q), dv_off.mT @ np.abs(dy)
        return np.stack(parts) + TINY


def forward_truth(inputs: Arrays) -> dict[str, Truth]:
    qkv = inputs["qkv"].astype(np.float64)
    B, T, _, H, D = qkv.shape
    y, _ = plain(attention.forward)(qkv.reshape(B * T, -1), B, H)
    return {"y": Truth(y.reshape(B, T, H, D), Rounded(qkv).y().swapaxes(1, 2))}


def backward_truth(inputs: Arrays) -> dict[str, Truth]:
    qkv, dy = (inputs[name].astype(np.float64) for name in ("qkv", "dy"))
    B, T, _, H, _ = qkv.shape
    _, saved = plain(attention.forward)(qkv.reshape(B * T, -1), B, H)
    dqkv = plain(attention.backward)(dy.reshape(B * T, -1), saved)
    bound = Rounded(qkv).dqkv(dy.swapaxes(1, 2)).transpose(1, 3, 0, 2, 4)
    return {"dqkv": Truth(dqkv.reshape(qkv.shape), bound)}


def pairs(sizes: Sizes) -> tuple[int, int]:
    """How many times a query looks at a key, its own and those before; and how many queries."""
    B, T, H, _ = shape_of(sizes)
    return B * H * T * (T + 1) // 2, B * H * T


def forward_flops(sizes: Sizes) -> int:
    """Of the pairs that are visible: D products, their sum and the scale; softmax; and the sums.

    The softmax of n scores takes 5n - 2 (see softmax.py), a sum of n products 2n - 1.
    """
    (seen, queries), D = pairs(sizes), sizes["D"]
    return 2 * D * seen + (5 * seen - 2 * queries) + D * (2 * seen - queries)


def backward_flops(sizes: Sizes) -> int:
    """From saved probabilities: dV, dP, the softmax's 4n - 1, the scale, dQ and dK.

    To make the probabilities again is a kernel's own affair, and not counted.
    """
    (seen, queries), D = pairs(sizes), sizes["D"]
    return 3 * D * (2 * seen - queries) + (2 * D - 1) * seen + (4 * seen - queries) + seen


def forward_bytes(sizes: Sizes) -> int:
    return 4 * (3 + 1) * pairs(sizes)[1] * sizes["D"]


def backward_bytes(sizes: Sizes) -> int:
    """Without what a forward saved, which each has in a form of its own."""
    return 4 * (3 + 1 + 3) * pairs(sizes)[1] * sizes["D"]


DIRECTIONS = {
    "forward": Direction(
        forward_inputs, forward_outputs, forward_truth, forward_flops, forward_bytes
    ),
    "backward": Direction(
        backward_inputs, backward_outputs, backward_truth, backward_flops, backward_bytes
    ),
}
