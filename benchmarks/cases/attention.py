"""Causal attention with several heads, as in ops/attention.py, without dropout.

qkv (B, T, 3, H, D), y and dy (B, T, H, D), dqkv like qkv. In memory these are the rows (N, 3C)
and (N, C) of training, N = B·T and C = H·D.
"""

from typing import Any

import numpy as np

from benchmarks.cases import Direction, Expected, unchecked
from benchmarks.cases.flops import EXP_FLOPS
from benchmarks.cases.rounding import EXP, TINY, gamma
from benchmarks.cases.shapes import MicroBatch, Sizes
from tinygpt_np.ops import attention

SWEPT = "T"
# With outliers this large, one key gets nine tenths of the probability in a row out of twelve, and
# scores are still accurate to some 1e-5.
FACTOR = 10


def sizes(part: MicroBatch) -> Sizes:
    """Return B sequences of T tokens, H heads of size D."""
    heads = part.heads
    return {"B": part.batch, "T": part.time, "H": heads, "D": part.width // heads}


class Rounding:
    """Error bounds of the probabilities and of what follows, from the sizes of all terms."""

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
        # A sum of T terms. An online softmax multiplies it by an exponential whenever it finds a
        # larger score.
        rises = (np.diff(largest, axis=-1) > 0).sum(axis=-1, keepdims=True)
        self.sums = self.time + (EXP + 1) * rises + 3
        # The argument of the exponential: a score, made of D products and the scale, minus the
        # maximum or the logarithm of the total, all of which are rounded.
        size = np.where(visible, np.abs(scores), 0)
        moved = gamma(self.size + 3) * self.scale * np.where(visible, np.abs(q) @ np.abs(k).mT, 0)
        moved += gamma(6) * (size + size.max(axis=-1, keepdims=True) + np.log(self.time) + 1)
        # Its error changes its own term, and in the mean over the row the total.
        spread = np.exp(moved) * (self.probs * np.exp(moved)).sum(axis=-1, keepdims=True)
        relative = spread * (1 + gamma(2 * EXP + self.sums)) - 1
        self.probs_off = np.where(visible, self.probs * relative + TINY, 0)
        # The error of a term of y is below `terms` times the value.
        self.probs_most = self.probs + self.probs_off
        self.terms = self.probs_off + gamma(self.sums) * self.probs_most

    def y(self) -> np.ndarray:
        """Return the bound of y (B, H, T, D)."""
        return self.terms @ np.abs(self.qkv[2]) + TINY

    def dqkv(self, dy: np.ndarray) -> np.ndarray:
        """Return the bound of dqkv (3, B, H, T, D)."""
        q, k, v = self.qkv
        dprobs, most = dy @ v.mT, np.abs(dy) @ np.abs(v).mT
        # delta is Σ_s probs·dprobs or Σ_d dy·y: the same products in another order.
        delta = (self.probs * dprobs).sum(axis=-1, keepdims=True)
        terms = self.terms + gamma(self.size + 1) * self.probs_most
        delta_off = (terms * most).sum(axis=-1, keepdims=True)
        differences = np.abs(dprobs - delta)
        differences_off = gamma(self.size) * most + delta_off
        dscores = self.probs * differences
        dscores_off = self.probs_off * differences + self.probs_most * differences_off
        # The difference, the product and the scale; then sums of T products.
        dscores_off += gamma(self.time + 5) * (dscores + dscores_off)
        dv_off = self.probs_off + gamma(self.time + 1) * self.probs_most
        every = self.scale * dscores_off
        parts = every @ np.abs(k), every.mT @ np.abs(q), dv_off.mT @ np.abs(dy)
        return np.stack(parts) + TINY


def forward_truth(qkv: np.ndarray) -> dict[str, Expected]:
    """Return y with its bound."""
    B, T, _, H, D = qkv.shape
    y, _ = unchecked(attention.forward)(qkv.reshape(B * T, -1), B, H)
    return {"y": Expected(y.reshape(B, T, H, D), Rounding(qkv).y().swapaxes(1, 2))}


def backward_truth(dy: np.ndarray, qkv: np.ndarray) -> dict[str, Expected]:
    """Return dqkv with its bound."""
    B, T, _, H, _ = qkv.shape
    _, saved = unchecked(attention.forward)(qkv.reshape(B * T, -1), B, H)
    dqkv = unchecked(attention.backward)(dy.reshape(B * T, -1), saved)
    bound = Rounding(qkv).dqkv(dy.swapaxes(1, 2)).transpose(1, 3, 0, 2, 4)
    return {"dqkv": Expected(dqkv.reshape(qkv.shape), bound)}


def forward_flops(size: Any) -> int:
    """Return the FLOPs for the visible pairs: scores with the scale, softmax, and sums over values.

    The softmax of n scores takes as many as in softmax.py, a sum of n products 2n - 1.
    """
    queries, D = size.B * size.H * size.T, size.D
    seen = queries * (size.T + 1) // 2
    return 2 * D * seen + ((4 + EXP_FLOPS) * seen - 2 * queries) + D * (2 * seen - queries)


def backward_flops(size: Any) -> int:
    """Return the FLOPs given the probabilities: dV, dP, softmax (4n - 1), the scale, dQ and dK.

    Recomputing the probabilities, as some kernels do, is not counted.
    """
    queries, D = size.B * size.H * size.T, size.D
    seen = queries * (size.T + 1) // 2
    return 3 * D * (2 * seen - queries) + (2 * D - 1) * seen + (4 * seen - queries) + seen


DIRECTIONS = {
    "forward": Direction({"qkv": "BT3HD"}, {"y": "BTHD"}, forward_truth, forward_flops,
                         outliers=FACTOR, between="BHTT"),
    # The bytes are without what the forward saved, which depends on the kernel.
    "backward": Direction(
        {"dy": "BTHD", "qkv": "BT3HD"}, {"dqkv": "BT3HD"}, backward_truth, backward_flops,
        known=("qkv",), outliers=FACTOR, between="BHTT",
    ),
}  # fmt: skip
