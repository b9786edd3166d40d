"""Layer norm of the rows of a residual stream, three of which are unlike the others.

Two rows are far from 0, where mean(x²) - mean(x)² loses all digits to cancellation. In one the
elements hardly differ, so that ε matters.
"""

import numpy as np

from benchmarks.cases import Direction, Expected, unchecked
from benchmarks.cases.rounding import TINY, gamma
from benchmarks.cases.shapes import MicroBatch, Sizes
from tinygpt_np.ops import layer_norm

SWEPT = "C"
FAR, FLAT = 1000, 1e-3


def sizes(part: MicroBatch) -> Sizes:
    """Return N rows of C channels."""
    return {"N": part.rows, "C": part.width}


def unusual_rows(
    _: np.random.Generator, x: np.ndarray, weight: np.ndarray, **others: np.ndarray
) -> None:
    """Move two rows far from 0, flatten another, and center the weights on 1."""
    x[[len(x) // 3, len(x) // 2]] += FAR
    x[len(x) // 4] *= FLAT
    weight[...] = 1 + weight / 2


def forward_truth(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> dict[str, Expected]:
    """Bound the error of y by those of x̂, the product and the sum."""
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


def with_moments(
    rng: np.random.Generator, x: np.ndarray, weight: np.ndarray, mean: np.ndarray,
    rstd: np.ndarray, **others: np.ndarray,
) -> None:  # fmt: skip
    """Make mean and rstd = 1/s those of the rows, as saved by the forward."""
    unusual_rows(rng, x, weight)
    exact = x.astype(np.float64)
    mean[...] = exact.mean(axis=-1)
    rstd[...] = (exact.var(axis=-1) + layer_norm.EPSILON) ** -0.5


def backward_truth(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray, **moments: np.ndarray
) -> dict[str, Expected]:
    """Bound the errors of the three terms of dx = (g - mean(g) - x̂·mean(g·x̂)) / s, g = dy·w."""
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


DIRECTIONS = {
    "forward": Direction(
        {"x": "NC", "weight": "C", "bias": "C"}, {"y": "NC"}, forward_truth, edit=unusual_rows,
        # Mean: C - 1 sums, a division. Variance: 3 C. ε and the root: 2. x̂, weight and bias: 3 C.
        flops=lambda size: size.N * (7 * size.C + 2),
    ),
    "backward": Direction(
        {"dy": "NC", "x": "NC", "weight": "C", "mean": "N", "rstd": "N"},
        {"dx": "NC", "dweight": "C", "dbias": "C"}, backward_truth, edit=with_moments,
        known=("x", "weight", "mean", "rstd"),
        # 11 per element and 2 sums over the rows.
        flops=lambda size: (11 * size.N + 2 * (size.N - 1)) * size.C,
    ),
}  # fmt: skip
