"""Softmax of rows: of attention scores, and of logits for the shape gpt2."""

import numpy as np

from benchmarks.cases import Arrays, Direction, Expected, Sizes, normal, outliers, unchecked
from benchmarks.cases.rounding import EXP, TINY, gamma
from tinygpt_np.ops import softmax

# N = B·H·T rows of scores for V = T keys; for gpt2 a row of logits per token.
SIZES = {
    "cpu": {"N": 768, "V": 64},
    "lecture": {"N": 3072, "V": 256},
    "gpt2": {"N": 128, "V": 50257},
    "awkward": {"N": 101, "V": 67},
}


def forward_inputs(sizes: Sizes, rng: np.random.Generator) -> Arrays:
    """Return x with two rows that overflow unless the maximum, first or last, is subtracted."""
    x = outliers(normal(rng, sizes["N"], sizes["V"]), rng, 20)
    x[sizes["N"] // 3, 0] = x[sizes["N"] // 2, -1] = 300
    return {"x": x}


def forward_truth(inputs: Arrays) -> dict[str, Expected]:
    """Bound the error: x - max is rounded, which exp turns into a relative error of |x - max|·U."""
    x = inputs["x"].astype(np.float64)
    probs, _ = softmax.forward(x)
    shift = x.max(axis=-1, keepdims=True) - x
    mean_shift = (probs * shift).sum(axis=-1, keepdims=True)
    roundings = EXP + x.shape[-1] + 2 + shift + EXP + mean_shift
    return {"probs": Expected(probs, probs * gamma(roundings) + TINY)}


def backward_inputs(sizes: Sizes, rng: np.random.Generator) -> Arrays:
    """Return dprobs and the probs of a forward."""
    probs, _ = softmax.forward(forward_inputs(sizes, rng)["x"])
    dprobs = outliers(normal(rng, sizes["N"], sizes["V"]), rng, 20)
    return {"dprobs": dprobs, "probs": probs}


def backward_truth(inputs: Arrays) -> dict[str, Expected]:
    """Bound the error of a sum of V products and two more operations."""
    probs, dprobs = (inputs[name].astype(np.float64) for name in ("probs", "dprobs"))
    dx = unchecked(softmax.backward)(dprobs, (probs, None))
    size = np.abs(dprobs) + (np.abs(dprobs) * probs).sum(axis=-1, keepdims=True)
    return {"dx": Expected(dx, probs * size * gamma(probs.shape[-1] + 3) + TINY * (1 + size))}


DIRECTIONS = {
    "forward": Direction(
        forward_inputs,
        {"probs": "NV"},
        forward_truth,
        # V - 1 comparisons for the maximum, V - 1 sums for the total; V each of -, exp and /.
        flops=lambda sizes: sizes["N"] * (5 * sizes["V"] - 2),
        bytes=lambda sizes: 4 * 2 * sizes["N"] * sizes["V"],
    ),
    "backward": Direction(
        backward_inputs,
        {"dx": "NV"},
        backward_truth,
        # V products and V - 1 sums for the mean, then V differences and V products.
        flops=lambda sizes: sizes["N"] * (4 * sizes["V"] - 1),
        bytes=lambda sizes: 4 * 3 * sizes["N"] * sizes["V"],
    ),
}
