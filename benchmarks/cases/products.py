"""The matmuls of the linear layers and the head in a training step, for one micro-batch each.

A layer takes y = x W, dx = dy Wᵀ and dW += xᵀ dy. The head's W is the token embedding transposed;
its gradient is that of the first micro-batch, which is added to nothing. Training packs large
weights once per step; a timed step here packs them too, and multiplies once for each of `uses`
micro-batches.
"""

import math
from collections.abc import Sequence

import numpy as np

from benchmarks.cases import Arrays, Direction, Expected, Sizes, count, normal, shape_of
from benchmarks.cases.rounding import TINY, gamma
from benchmarks.models.workloads import WORKLOADS
from tinygpt_np.compiled.engine import micro_batches

HEAD = "head"
# Rows and columns of W: C the width, Q = 3 C, F = 4 C, V the vocabulary.
LAYERS = {"c_attn": "CQ", "attn c_proj": "CC", "c_fc": "CF", "mlp c_proj": "FC", HEAD: "CV"}
# At most this many rows of a result are compared with the truth.
CHECKED = 2048


def sizes_of(name: str) -> Sizes:
    """Return the sizes of a workload; N is the rows of a micro-batch."""
    work = WORKLOADS[name]
    parts = micro_batches(work.batch_size, work.block_size)
    rows, C = (parts[0].stop - parts[0].start) * work.block_size, work.n_embd
    return {"N": rows, "C": C, "Q": 3 * C, "F": 4 * C, "V": work.vocab_size, "uses": len(parts)}


SIZES = {name: sizes_of(name) for name in ("cpu", "lecture", "gpt2")}


def checked_truth(
    name: str, a: np.ndarray, b: np.ndarray, start: np.ndarray | None = None
) -> dict[str, Expected]:
    """Return start + a·b for some rows, with the bound gamma(depth + 1)·(|start| + Σ|a||b|)."""
    rows = np.linspace(0, len(a) - 1, min(len(a), CHECKED)).astype(np.int64)
    a, b = a[rows].astype(np.float64), b.astype(np.float64)
    values, size = a @ b, np.abs(a) @ np.abs(b)
    if start is not None:
        values, size = values + start[rows], size + np.abs(start[rows])
    return {name: Expected(values, gamma(b.shape[0] + 1) * size + TINY, rows)}


def weight_of(layer: str, inputs: Arrays) -> np.ndarray:
    """Return W (in, out) of a layer."""
    return inputs["weight"].T if layer == HEAD else inputs["weight"]


def product(layer: str, which: str) -> Direction:
    """Return y, dx or dW of a layer."""
    rows, columns = LAYERS[layer]
    stored = columns + rows if layer == HEAD else rows + columns
    shapes = {"x": "N" + rows, "dy": "N" + columns, "weight": stored, "dweight": stored}
    names: Sequence[str] = {"y": ("x", "weight"), "dx": ("dy", "weight"), "dW": ("x", "dy")}[which]
    adds = which == "dW" and layer != HEAD
    result = {"y": {"y": "N" + columns}, "dx": {"dx": "N" + rows}, "dW": {"dweight": stored}}[which]

    def inputs(sizes: Sizes, rng: np.random.Generator) -> Arrays:
        given = (*names, "dweight") if adds else names
        return {name: normal(rng, *shape_of(shapes[name], sizes)) for name in given}

    def truth(inputs: Arrays) -> dict[str, Expected]:
        if which == "y":
            return checked_truth("y", inputs["x"], weight_of(layer, inputs))
        if which == "dx":
            return checked_truth("dx", inputs["dy"], weight_of(layer, inputs).T)
        left, right = (inputs[name] for name in (("dy", "x") if layer == HEAD else ("x", "dy")))
        return checked_truth("dweight", left.T, right, inputs["dweight"] if adds else None)

    def uses(sizes: Sizes) -> int:
        return 1 if which == "dW" else sizes["uses"]

    def moved(sizes: Sizes) -> int:
        arrays = [shapes[name] for name in names] + [*result.values()] * (1 + adds)
        return 4 * uses(sizes) * sum(count(letters, sizes) for letters in arrays)

    return Direction(
        inputs,
        {} if adds else result,
        truth,
        flops=lambda sizes: 2 * uses(sizes) * math.prod(shape_of("N" + rows + columns, sizes)),
        bytes=moved,
        changed=("dweight",) if adds else (),
    )


DIRECTIONS = {
    f"{layer} {which}": product(layer, which) for layer in LAYERS for which in ("y", "dx", "dW")
}
