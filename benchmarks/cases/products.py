"""The matmuls of the linear layers and the head in a training step, for one micro-batch each.

A layer takes y = x W, dx = dy Wᵀ and dW += xᵀ dy. The head's W is the token embedding transposed;
its gradient is that of the first micro-batch, which is added to nothing. Training packs large
weights once per step; a timed step here packs them too, and multiplies once for each of `uses`
micro-batches.
"""

import math
from types import SimpleNamespace

import numpy as np

from benchmarks.cases import Arrays, Direction, Expected, shape_of
from benchmarks.cases.rounding import TINY, gamma
from benchmarks.cases.shapes import MicroBatch, Sizes

HEAD = "head"
# Rows and columns of W: C the width, Q = 3 C, F = 4 C, V the vocabulary.
LAYERS = {"c_attn": "CQ", "attn c_proj": "CC", "c_fc": "CF", "mlp c_proj": "FC", HEAD: "CV"}
# At most this many rows of a result are compared with the truth.
CHECKED = 2048


def sizes(part: MicroBatch) -> Sizes:
    """Return N rows, and what LAYERS says."""
    C = part.width
    found = {"N": part.rows, "C": C, "Q": 3 * C, "F": 4 * C, "V": part.vocab}
    return found | {"uses": part.uses}


def factors(layer: str, which: str, arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Return the two matrices that are multiplied."""
    if which == "dW":
        left, right = ("dy", "x") if layer == HEAD else ("x", "dy")
        return arrays[left].T, arrays[right]
    weight = arrays["weight"].T if layer == HEAD else arrays["weight"]
    return (arrays["x"], weight) if which == "y" else (arrays["dy"], weight.T)


def checked_truth(
    name: str, a: np.ndarray, b: np.ndarray, start: np.ndarray | None = None
) -> dict[str, Expected]:
    """Return start + a·b for some rows, with the bound gamma(depth + 1)·(|start| + Σ|a||b|)."""
    rows = np.linspace(0, len(a) - 1, min(len(a), CHECKED)).astype(np.int64)
    values, size = a[rows] @ b, np.abs(a[rows]) @ np.abs(b)
    if start is not None:
        values, size = values + start[rows], size + np.abs(start[rows])
    return {name: Expected(values, gamma(len(b) + 1) * size + TINY, rows)}


def product(layer: str, which: str) -> Direction:
    """Return y, dx or dW of a layer."""
    rows, columns = LAYERS[layer]
    stored = columns + rows if layer == HEAD else rows + columns
    shapes = {"x": "N" + rows, "dy": "N" + columns, "weight": stored, "dweight": stored}
    shapes |= {"y": shapes["dy"], "dx": shapes["x"]}
    *names, result = {
        "y": ("x", "weight", "y"), "dx": ("dy", "weight", "dx"), "dW": ("x", "dy", "dweight")
    }[which]  # fmt: skip
    adds = which == "dW" and layer != HEAD
    given = [*names, result] if adds else names

    def truth(**inputs: np.ndarray) -> dict[str, Expected]:
        return checked_truth(result, *factors(layer, which, inputs), inputs.get(result))

    def multiplications(size: SimpleNamespace) -> int:
        return 1 if which == "dW" else size.uses

    def flops(size: SimpleNamespace) -> int:
        return 2 * multiplications(size) * math.prod(shape_of("N" + rows + columns, vars(size)))

    def moved(size: SimpleNamespace) -> int:
        arrays = [math.prod(shape_of(shapes[name], vars(size))) for name in (*given, result)]
        return 4 * multiplications(size) * sum(arrays)

    inputs = {name: shapes[name] for name in given}
    if adds:
        return Direction(inputs, {}, truth, flops, moved, changed=(result,), outliers=1)
    return Direction(inputs, {result: shapes[result]}, truth, flops, moved, outliers=1)


DIRECTIONS = {
    f"{layer} {which}": product(layer, which) for layer in LAYERS for which in ("y", "dx", "dW")
}
