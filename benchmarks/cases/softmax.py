"""Softmax of rows: of attention scores, or of logits where the vocabulary is large."""

import numpy as np

from benchmarks.cases import Direction, Expected, unchecked
from benchmarks.cases.flops import EXP_FLOPS
from benchmarks.cases.rounding import EXP, TINY, gamma
from benchmarks.cases.shapes import MicroBatch, Sizes
from tinygpt_np.ops import softmax

SWEPT = "V"


def sizes(part: MicroBatch) -> Sizes:
    """Return N rows of V values: a row of logits per token if these are more, or else of scores."""
    if part.vocab > part.heads * part.time:
        return {"N": part.rows, "V": part.vocab}
    return {"N": part.heads * part.rows, "V": part.time}


def overflow(_: np.random.Generator, x: np.ndarray) -> None:
    """Make two rows overflow unless the maximum, first or last, is subtracted."""
    x[len(x) // 3, 0] = x[len(x) // 2, -1] = 300


def forward_truth(x: np.ndarray) -> dict[str, Expected]:
    """Bound the error: x - max is rounded, which exp turns into a relative error of |x - max|·U."""
    probs, _ = softmax.forward(x)
    shift = x.max(axis=-1, keepdims=True) - x
    mean_shift = (probs * shift).sum(axis=-1, keepdims=True)
    roundings = EXP + x.shape[-1] + 2 + shift + EXP + mean_shift
    return {"probs": Expected(probs, probs * gamma(roundings) + TINY)}


def normalise(rng: np.random.Generator, dprobs: np.ndarray, probs: np.ndarray) -> None:
    """Make probs those of a forward."""
    overflow(rng, probs)
    probs[...] = softmax.forward(probs)[0]


def backward_truth(dprobs: np.ndarray, probs: np.ndarray) -> dict[str, Expected]:
    """Bound the error of a sum of V products and two more operations."""
    dx = unchecked(softmax.backward)(dprobs, (probs, None))
    size = np.abs(dprobs) + (np.abs(dprobs) * probs).sum(axis=-1, keepdims=True)
    return {"dx": Expected(dx, probs * size * gamma(probs.shape[-1] + 3) + TINY * (1 + size))}


DIRECTIONS = {
    "forward": Direction(
        {"x": "NV"}, {"probs": "NV"}, forward_truth, edit=overflow,
        # V - 1 comparisons for the maximum, V - 1 sums for the total; V each of -, exp and /.
        flops=lambda size: size.N * ((4 + EXP_FLOPS) * size.V - 2),
    ),
    "backward": Direction(
        {"dprobs": "NV", "probs": "NV"}, {"dx": "NV"}, backward_truth, edit=normalise,
        known=("probs",),
        # V products and V - 1 sums for the mean, then V differences and V products.
        flops=lambda size: size.N * (4 * size.V - 1),
    ),
}  # fmt: skip
