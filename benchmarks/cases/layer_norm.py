"""Layer norm of the rows of a residual stream, three of which are unlike the others.

Two rows are far from 0, where mean(x²) - mean(x)² loses all digits to cancellation. In one the
elements hardly differ, so that ε matters.
"""

import numpy as np

from benchmarks.cases import Arrays, Direction, Expected, Sizes, normal, outliers, unchecked
from benchmarks.cases.rounding import TINY, gamma
from tinygpt_np.ops import layer_norm

# N = B·T rows of C channels, or fewer rows where a micro-batch has more.
SIZES = {
    "cpu": {"N": 192, "C": 128},
    "lecture": {"N": 512, "C": 384},
    "gpt2": {"N": 128, "C": 768},
    "awkward": {"N": 101, "C": 97},
}
FAR, FLAT = 1000, 1e-3


def forward_inputs(sizes: Sizes, rng: np.random.Generator) -> Arrays:
    """Return x with outliers and unusual rows, weight and bias."""
    x = outliers(normal(rng, sizes["N"], sizes["C"]), rng, 20)
    x[[sizes["N"] // 3, sizes["N"] // 2]] += FAR
    x[sizes["N"] // 4] *= FLAT
    weight = 1 + normal(rng, sizes["C"]) / 2
    return {"x": x, "weight": weight, "bias": outliers(normal(rng, sizes["C"]), rng, 20)}


def forward_truth(inputs: Arrays) -> dict[str, Expected]:
    """Bound the error of y by those of x̂, the product and the sum."""
    x, weight, bias = (inputs[name].astype(np.float64) for name in ("x", "weight", "bias"))
    y, (xhat, std, *_) = unchecked(layer_norm.forward)(x, weight, bias)
    off, _ = errors(x, xhat, std)
    scaled = np.abs(xhat * weight)
    bound = np.abs(weight) * off + scaled * gamma(2) + np.abs(y) * gamma(1)
    return {"y": Expected(y, bound + TINY)}


def errors(x: np.ndarray, xhat: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the absolute error of x̂ and the relative error of 1/s.

    The error of the mean, a sum of C terms and a division, moves a whole row; x/s - mean/s also
    rounds x. An error of x - mean changes its square by 2 |x - mean| times that, unless the whole
    row moves alike.
    """
    C = x.shape[-1]
    moved = gamma(C + 4) * np.abs(x).mean(axis=-1, keepdims=True)
    spread = np.abs(xhat * std).mean(axis=-1, keepdims=True)
    variance = (2 * spread * moved + moved * moved) / (std * std) + gamma(C + 5)
    scale = variance / 2 / (1 - variance) + gamma(3)
    centered = moved + gamma(4) * np.abs(x)
    return centered * (1 + scale) / std + np.abs(xhat) * scale, scale


def backward_inputs(sizes: Sizes, rng: np.random.Generator) -> Arrays:
    """Return dy with outliers, and x and weight."""
    found = forward_inputs(sizes, rng)
    dy = outliers(normal(rng, sizes["N"], sizes["C"]), rng, 20)
    return {"dy": dy, "x": found["x"], "weight": found["weight"]}


def backward_truth(inputs: Arrays) -> dict[str, Expected]:
    """Bound the errors of the three terms of dx = (g - mean(g) - x̂·mean(g·x̂)) / s, g = dy·w."""
    dy, x, weight = (inputs[name].astype(np.float64) for name in ("dy", "x", "weight"))
    _, saved = unchecked(layer_norm.forward)(x, weight)
    xhat, std, *_ = saved
    dx, dweight, _ = unchecked(layer_norm.backward)(dy, saved)
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
        "dx": Expected(dx, bound + TINY),
        "dweight": Expected(dweight, rows + TINY),
        "dbias": Expected(dy.sum(axis=0), upstream.sum(axis=0) * gamma(N) + TINY),
    }


def backward_flops(sizes: Sizes) -> int:
    """Return 11 FLOPs per element and 2 sums over the rows; the mean and 1/s are given."""
    N, C = sizes["N"], sizes["C"]
    return 11 * N * C + 2 * (N - 1) * C


def backward_bytes(sizes: Sizes) -> int:
    """Return the bytes of dy, x, dx; weight, dweight, dbias; the mean and 1/s of each row."""
    N, C = sizes["N"], sizes["C"]
    return 4 * (3 * N * C + 3 * C + 2 * N)


DIRECTIONS = {
    "forward": Direction(
        forward_inputs,
        {"y": "NC"},
        forward_truth,
        # Mean: C - 1 sums, a division. Variance: 3 C. ε and the root: 2. x̂, weight and bias: 3 C.
        flops=lambda sizes: sizes["N"] * (7 * sizes["C"] + 2),
        bytes=lambda sizes: 4 * (2 * sizes["N"] * sizes["C"] + 2 * sizes["C"]),
    ),
    "backward": Direction(
        backward_inputs,
        {"dx": "NC", "dweight": "C", "dbias": "C"},
        backward_truth,
        backward_flops,
        backward_bytes,
    ),
}
