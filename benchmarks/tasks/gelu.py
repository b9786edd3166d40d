"""GELU, tanh form, of every number of the hidden layer of a feed-forward."""

import numpy as np

from benchmarks.rounding import TINY, gamma
from benchmarks.tasks import Arrays, Direction, Sizes, Truth, normal, outliers, plain
from tinygpt_np.ops import gelu

# P = N·4C numbers of a micro-batch.
SIZES = {
    "cpu": {"P": 192 * 512},
    "lecture": {"P": 512 * 1536},
    "gpt2": {"P": 128 * 3072},
    "awkward": {"P": 10007},
}
# Roundings of u: five operations, two constants and their product.
INNER = 8
# A tanh that errs by less than 4 ulp, an ulp being at most 2 U.
TANH = 8


def forward_inputs(sizes: Sizes, rng: np.random.Generator) -> Arrays:
    x = outliers(normal(rng, sizes["P"]), rng, 5)
    # At the ends above 0, for far below it there is nothing that could be missed.
    x[[0, -1]] = np.abs(x[[0, -1]])
    return {"x": x}


def forward_outputs(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    return {"y": (sizes["P"],)}


def forward_truth(inputs: Arrays) -> dict[str, Truth]:
    """Where tanh u is near -1, 1 + tanh u keeps of it nothing but its error."""
    x = inputs["x"].astype(np.float64)
    y, (_, tanh) = plain(gelu.forward)(x)
    bound = np.abs(x) * error_of_tanh(x, tanh) / 2 + np.abs(y) * gamma(4)
    return {"y": Truth(y, bound + TINY)}


def error_of_tanh(x: np.ndarray, tanh: np.ndarray) -> np.ndarray:
    """Absolute: that of u times tanh' u, and its own."""
    inner = gelu.SQRT_2_OVER_PI * (np.abs(x) + gelu.CUBIC * np.abs(x**3))
    return (1 - tanh * tanh) * inner * gamma(INNER) + np.abs(tanh) * gamma(TANH)


def backward_inputs(sizes: Sizes, rng: np.random.Generator) -> Arrays:
    return {"dy": outliers(normal(rng, sizes["P"]), rng, 20), **forward_inputs(sizes, rng)}


def backward_outputs(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    return {"dx": (sizes["P"],)}


def backward_truth(inputs: Arrays) -> dict[str, Truth]:
    """The error of tanh u, in the gate and, twice, in tanh² u; and of two terms that may cancel.

    1 - tanh² u may also be made of an exp or a cosh, to 12 roundings; 8 more are of its factors.
    """
    dy, x = (inputs[name].astype(np.float64) for name in ("dy", "x"))
    _, saved = plain(gelu.forward)(x)
    dx = plain(gelu.backward)(dy, saved)
    tanh = saved[1]
    off = error_of_tanh(x, tanh)
    factor = np.abs(x) / 2 * gelu.SQRT_2_OVER_PI * (1 + 3 * gelu.CUBIC * x * x)
    gate = off / 2 + (1 + tanh) / 2 * gamma(8)
    bend = factor * (2 * np.abs(tanh) * off + (1 - tanh * tanh) * gamma(20))
    return {"dx": Truth(dx, np.abs(dy) * (gate + bend) + TINY)}


def forward_flops(sizes: Sizes) -> int:
    """u: two products for x³, one with each constant, a sum; tanh; 1 +, half, times x."""
    return 9 * sizes["P"]


def backward_flops(sizes: Sizes) -> int:
    """u, tanh and gate: 8. x ½√(2/π) (1 - tanh²)(1 + 3·0.044715 x²), with x² at hand: 7. Then 2."""
    return 17 * sizes["P"]


def forward_bytes(sizes: Sizes) -> int:
    return 4 * 2 * sizes["P"]


def backward_bytes(sizes: Sizes) -> int:
    return 4 * 3 * sizes["P"]


DIRECTIONS = {
    "forward": Direction(
        forward_inputs, forward_outputs, forward_truth, forward_flops, forward_bytes
    ),
    "backward": Direction(
        backward_inputs, backward_outputs, backward_truth, backward_flops, backward_bytes
    ),
}
