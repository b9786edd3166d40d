"""RMS norm of the rows of a residual stream, two of which are unlike the others.

In one row the elements are so small that ε matters; another is far from 0.
"""

import numpy as np

from benchmarks.cases import Direction, Expected, unchecked
from benchmarks.cases.rounding import TINY, gamma
from benchmarks.cases.shapes import MicroBatch, Sizes
from tinygpt_np.ops import rms_norm

SWEPT = "C"
EPSILON = 1e-5
FAR, FLAT = 1000, 1e-3


def sizes(part: MicroBatch) -> Sizes:
    """Return N rows of C channels."""
    return {"N": part.rows, "C": part.width}


def unusual_rows(
    _: np.random.Generator, stream: np.ndarray, weight: np.ndarray, **others: np.ndarray
) -> None:
    """Move one row far from 0, flatten another, and center the weights on 1."""
    stream[len(stream) // 2] += FAR
    stream[len(stream) // 4] *= FLAT
    weight[...] = 1 + weight / 2


def forward_truth(stream: np.ndarray, weight: np.ndarray) -> dict[str, Expected]:
    """Bound the error of y: that of 1/r, and a product or a quotient and a product."""
    y, _ = unchecked(rms_norm.forward)(stream, weight, EPSILON)
    return {"normed": Expected(y, np.abs(y) * gamma(scale_roundings(stream) + 3) + TINY)}


def scale_roundings(stream: np.ndarray) -> float:
    """Return the roundings of 1/r: half of those of a mean of C squares with ε, and three."""
    return (stream.shape[-1] + 5) / 2 + 3


def with_scales(
    rng: np.random.Generator, stream: np.ndarray, weight: np.ndarray, rstd: np.ndarray,
    **others: np.ndarray,
) -> None:  # fmt: skip
    """Make rstd = 1/r that of the rows, as saved by the forward."""
    unusual_rows(rng, stream, weight)
    exact = stream.astype(np.float64)
    rstd[...] = ((exact * exact).mean(axis=-1) + EPSILON) ** -0.5


def backward_truth(
    dnormed: np.ndarray, stream: np.ndarray, weight: np.ndarray, rstd: np.ndarray
) -> dict[str, Expected]:
    """Bound the errors of both terms of (g - x̂·mean(g·x̂)) / r, where g = dnormed·w."""
    _, saved = unchecked(rms_norm.forward)(stream, weight, EPSILON)
    xhat, rms, _ = saved
    dstream, dweight = unchecked(rms_norm.backward)(dnormed, saved)
    N, C = stream.shape
    off = scale_roundings(stream) + 1  # The roundings of x̂.
    g = np.abs(dnormed * weight)
    along_xhat = (g * np.abs(xhat)).mean(axis=-1, keepdims=True) * gamma(C + 4 + 2 * off)
    bound = (g * gamma(4 + off) + np.abs(xhat) * along_xhat) / rms + np.abs(dstream) * gamma(3)
    rows = (np.abs(dnormed) * np.abs(xhat)).sum(axis=0) * gamma(N + off)
    return {"dstream": Expected(dstream, bound + TINY), "dweight": Expected(dweight, rows + TINY)}


DIRECTIONS = {
    "forward": Direction(
        {"stream": "NC", "weight": "C"}, {"normed": "NC"}, forward_truth, edit=unusual_rows,
        # The mean of squares: 2 C. ε and the root: 2. x̂ and the weight: 2 C.
        flops=lambda size: size.N * (4 * size.C + 2),
    ),
    "backward": Direction(
        {"dnormed": "NC", "stream": "NC", "weight": "C", "rstd": "N"},
        {"dstream": "NC", "dweight": "C"}, backward_truth, edit=with_scales,
        known=("stream", "weight", "rstd"),
        # 8 per element and a sum over the rows.
        flops=lambda size: (8 * size.N + size.N - 1) * size.C,
    ),
}  # fmt: skip
