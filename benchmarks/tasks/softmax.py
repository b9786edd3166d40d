"""Softmax of rows: of attention scores, and at gpt2 of logits."""

import numpy as np

from benchmarks.rounding import EXP, TINY, gamma
from benchmarks.tasks import Arrays, Direction, Sizes, Truth, normal, outliers, plain
from tinygpt_np.ops import softmax

# Rows N = B·H·T of scores with T keys, V of them; at gpt2 a row of logits for each token.
SIZES = {
    "cpu": {"N": 768, "V": 64},
    "lecture": {"N": 3072, "V": 256},
    "gpt2": {"N": 128, "V": 50257},
    "awkward": {"N": 101, "V": 67},
}


def forward_inputs(sizes: Sizes, rng: np.random.Generator) -> Arrays:
    """Two rows overflow unless their largest is found, at one end of them and at the other."""
    x = outliers(normal(rng, sizes["N"], sizes["V"]), rng, 20)
    x[sizes["N"] // 3, 0] = x[sizes["N"] // 2, -1] = 300
    return {"x": x}


def forward_outputs(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    return {"probs": (sizes["N"], sizes["V"])}


def forward_truth(inputs: Arrays) -> dict[str, Truth]:
    """shifted = x - largest is rounded, which exp makes a relative error of |shifted|·U."""
    x = inputs["x"].astype(np.float64)
    probs, _ = softmax.forward(x)
    shift = x.max(axis=-1, keepdims=True) - x
    mean_shift = (probs * shift).sum(axis=-1, keepdims=True)
    roundings = EXP + x.shape[-1] + 2 + shift + EXP + mean_shift
    return {"probs": Truth(probs, probs * gamma(roundings) + TINY)}


def backward_inputs(sizes: Sizes, rng: np.random.Generator) -> Arrays:
    probs, _ = softmax.forward(forward_inputs(sizes, rng)["x"])
    dprobs = outliers(normal(rng, sizes["N"], sizes["V"]), rng, 20)
    return {"dprobs": dprobs, "probs": probs}


def backward_outputs(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    return {"dx": (sizes["N"], sizes["V"])}


def backward_truth(inputs: Arrays) -> dict[str, Truth]:
    probs, dprobs = (inputs[name].astype(np.float64) for name in ("probs", "dprobs"))
    dx = plain(softmax.backward)(dprobs, (probs, None))
    size = np.abs(dprobs) + (np.abs(dprobs) * probs).sum(axis=-1, keepdims=True)
    return {"dx": Truth(dx, probs * size * gamma(probs.shape[-1] + 3) + TINY * (1 + size))}


def forward_flops(sizes: Sizes) -> int:
    """The largest of V takes V - 1 comparisons and the total V - 1 sums; V each of -, exp and /."""
    return sizes["N"] * (5 * sizes["V"] - 2)


def backward_flops(sizes: Sizes) -> int:
    """The mean: V products, V - 1 sums; then V differences and V products."""
    return sizes["N"] * (4 * sizes["V"] - 1)


def forward_bytes(sizes: Sizes) -> int:
    return 4 * 2 * sizes["N"] * sizes["V"]


def backward_bytes(sizes: Sizes) -> int:
    return 4 * 3 * sizes["N"] * sizes["V"]


DIRECTIONS = {
    "forward": Direction(
        forward_inputs, forward_outputs, forward_truth, forward_flops, forward_bytes
    ),
    "backward": Direction(
        backward_inputs, backward_outputs, backward_truth, backward_flops, backward_bytes
    ),
}
