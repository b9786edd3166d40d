"""Embedding, compiled. The derivation is in ops/embedding.py. The cores do not check ids."""

from typing import Any

import numpy as np

from tinygpt_np.compiled.cache import kernel
from tinygpt_np.compiled.simd.arrays import floats, integers


@kernel
def forward_rows(ids: Any, weight: Any, rows: Any) -> None:
    """ids (N,), weight (V, C) -> rows (N, C)."""
    for n in range(ids.size):
        v = ids[n]
        for c in range(weight.shape[1]):
            rows[n, c] = weight[v, c]


@kernel
def add_rows(ids: Any, drows: Any, dweight: Any) -> None:
    """Add drows (N, C) to the rows ids (N,) of dweight (V, C), in order."""
    for n in range(ids.size):
        v = ids[n]
        for c in range(dweight.shape[1]):
            dweight[v, c] += drows[n, c]


@kernel
def embed(tokens: Any, start: Any, wte: Any, wpe: Any, x: Any) -> None:
    """tokens (B, n) at the positions from start on, wte, wpe (·, C) -> the first B·n rows of x."""
    batch, count = tokens.shape
    for sequence in range(batch):
        for i in range(count):
            n, v, t = sequence * count + i, tokens[sequence, i], start + i
            for c in range(x.shape[1]):
                x[n, c] = wte[v, c] + wpe[t, c]


def forward(ids: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """ids (N,) integers in [0, V), weight (V, C) -> rows (N, C), saved."""
    ids = integers(ids, "embedding.forward: ids")  # (N,)
    weight = floats(weight, "embedding.forward: weight")  # (V, C)
    rows = np.empty((ids.size, weight.shape[1]), np.float32)  # (N, C)
    forward_rows(ids, weight, rows)
    return rows, (ids, weight.shape)


def backward(drows: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """drows (N, C) -> dweight (V, C)."""
    ids, shape = saved
    dweight = np.zeros(shape, np.float32)  # (V, C)
    add_rows(ids, floats(drows, "embedding.backward: drows"), dweight)
    return dweight
