"""Layer norm of the rows of a residual stream, three of which are unlike the others.

Two lie far from 0: there mean(x²) - mean(x)² is what is left of two numbers whose first digits
agree. In one, the numbers hardly differ: there ε counts.
"""

import numpy as np

from benchmarks.rounding import TINY, gamma
from benchmarks.tasks import Arrays, Direction, Sizes, Truth, normal, outliers, plain
from tinygpt_np.ops import layer_norm

# Rows N = B·T of C channels, or fewer where a micro-batch has more.
SIZES = {
    "cpu": {"N": 192, "C": 128},
    "lecture": {"N": 512, "C": 384},
    "gpt2": {"N": 128, "C": 768},
    "awkward": {"N": 101, "C": 97},
}
FAR, FLAT = 1000, 1e-3


def forward_inputs(sizes: Sizes, rng: np.random.Generator) -> Arrays:
    x = outliers(normal(rng, sizes["N"], sizes["C"]), rng, 20)
    x[[sizes["N"] // 3, sizes["N"] // 2]] += FAR
    x[sizes["N"] // 4] *= FLAT
    weight = 1 + normal(rng, sizes["C"]) / 2
    return {"x": x, "weight": weight, "bias": outliers(normal(rng, sizes["C"]), rng, 20)}


def forward_outputs(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    return {"y": (sizes["N"], sizes["C"])}


def forward_truth(inputs: Arrays) -> dict[str, Truth]:
    x, weight, bias = (inputs[name].astype(np.float64) for name in ("x", "weight", "bias"))
    y, (xhat, std, *_) = plain(layer_norm.forward)(x, weight, bias)
    off, _ = errors(x, xhat, std)
    scaled = np.abs(xhat * weight)
    bound = np.abs(weight) * off + scaled * gamma(2) + np.abs(y) * gamma(1)
    return {"y": Truth(y, bound + TINY)}


def errors(x: np.ndarray, xhat: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of xhat, absolute, and of 1/s, relative.

    The mean, a sum of C and a quotient, moves all of a row; x/s - mean/s also rounds x. What moves
    x - mean moves its square by 2 |x - mean| times that, if not all of a row is moved alike.
    """
    C = x.shape[-1]
    moved = gamma(C + 4) * np.abs(x).mean(axis=-1, keepdims=True)
    spread = np.abs(xhat * std).mean(axis=-1, keepdims=True)
    variance = (2 * spread * moved + moved * moved) / (std * std) + gamma(C + 5)
    scale = variance / 2 / (1 - variance) + gamma(3)
    centered = moved + gamma(4) * np.abs(x)
    return centered * (1 + scale) / std + np.abs(xhat) * scale, scale


def backward_inputs(sizes: Sizes, rng: np.random.Generator) -> Arrays:
    found = forward_inputs(sizes, rng)
    dy = outliers(normal(rng, sizes["N"], sizes["C"]), rng, 20)
    return {"dy": dy, "x": found["x"], "weight": found["weight"]}


def backward_outputs(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    return {"dx": (sizes["N"], sizes["C"]), "dweight": (sizes["C"],), "dbias": (sizes["C"],)}


def backward_truth(inputs: Arrays) -> dict[str, Truth]:
    """dx = (g - mean(g) - xhat mean(g xhat)) / s, g = dy w: three terms, each with its error."""
    dy, x, weight = (inputs[name].astype(np.float64) for name in ("dy", "x", "weight"))
    _, saved = plain(layer_norm.forward)(x, weight)
    xhat, std, *_ = saved
    dx, dweight, _ = plain(layer_norm.backward)(dy, saved)
    N, C = x.shape
    off, scale = errors(x, xhat, std)
    g = np.abs(dy * weight)
    along_ones = g.mean(axis=-1, keepdims=True) * gamma(C + 4)
    along_xhat = (dy * weight * xhat).mean(axis=-1, keepdims=True)
    moved = (g * np.abs(xhat)).mean(axis=-1, keepdims=True) * gamma(C + 6)
    moved = moved + (g * off).mean(axis=-1, keepdims=True) * (1 + gamma(C + 6))
    third = (np.abs(xhat) + off) * moved + np.abs(along_xhat) * (off + np.abs(xhat) * gamma(5))
    bound = (g * gamma(5) + along_ones + third) * (1 + scale) / std + np.abs(dx) * scale
    upstream = np.abs(dy)
    rows = (upstream * np.abs(xhat)).sum(axis=0) * gamma(N + 2)
    rows = rows + (upstream * off).sum(axis=0) * (1 + gamma(N + 2))
    return {
        "dx": Truth(dx, bound + TINY),
        "dweight": Truth(dweight, rows + TINY),
        "dbias": Truth(dy.sum(axis=0), upstream.sum(axis=0) * gamma(N) + TINY),
    }


def forward_flops(sizes: Sizes) -> int:
    """The mean: C - 1 sums, a quotient. The variance: 3 C. ε and the root: 2. Then x̂, w, b: 3 C."""
    return sizes["N"] * (7 * sizes["C"] + 2)


def backward_flops(sizes: Sizes) -> int:
    """Of each element 11, and 2 sums over the rows; the mean and 1/s are what forward saved."""
    N, C = sizes["N"], sizes["C"]
    return 11 * N * C + 2 * (N - 1) * C


def forward_bytes(sizes: Sizes) -> int:
    N, C = sizes["N"], sizes["C"]
    return 4 * (2 * N * C + 2 * C)


def backward_bytes(sizes: Sizes) -> int:
    """dy, x, dx; weight, dweight, dbias; the mean and 1/s of each row."""
    N, C = sizes["N"], sizes["C"]
    return 4 * (3 * N * C + 3 * C + 2 * N)


DIRECTIONS = {
    "forward": Direction(
        forward_inputs, forward_outputs, forward_truth, forward_flops, forward_bytes
    ),
    "backward": Direction(
        backward_inputs, backward_outputs, backward_truth, backward_flops, backward_bytes
    ),
}
