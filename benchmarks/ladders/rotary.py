"""Rotary positions, from a loop in Python to the kernel of a transformer block.

All rotate in place with tables of cos and sin. Speedups are over the rung before, at cpu and at
lecture (halves; interleaved).

NumPy: whole arrays (x1100, x1700; x1000, x1300).
fused: one loop over the pairs. That over halves is vectorised (x25, x19); neighbours are
    computed pair by pair (x3.4, x3.1).
vectors: cos and sin are loaded once for all heads (x1.3, x1.0); interleaved pairs are taken apart
    and joined in registers (x6.0, x7.7).
parallel: two threads. The work takes 2 to 20 µs, less than waking up the other thread.

Tried; times relative to vectors (halves), at cpu and at lecture:

- One head after the other, loading cos and sin for each: 2.4, 1.9.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.ladders import Call, Rung, Runner, contiguous, direct
from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.kernels import rotary as trained


def python(pairs: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> None:
    """Rotate pairs (2, B, T, H, R) by cos, sin (T, R) in place, one after the other."""
    cosines, sines = cos.tolist(), sin.tolist()
    for index in np.ndindex(pairs.shape[1:]):
        c, s = cosines[index[1]][index[3]], sines[index[1]][index[3]]
        first, second = float(pairs[0][index]), float(pairs[1][index])
        pairs[0][index], pairs[1][index] = first * c - second * s, first * s + second * c


def numpy(pairs: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> None:
    """Rotate pairs (2, B, T, H, R) by cos, sin (T, R) in place."""
    first, second = pairs
    c, s = cos[:, None], sin[:, None]
    turned = first * c - second * s, first * s + second * c
    first[...], second[...] = turned


@strict
def fused_halves(x: Any, cos: Any, sin: Any) -> None:
    """Rotate x (B, T, H, 2, R) by cos, sin (T, R) in place."""
    B, T, H, _, R = x.shape
    for b in range(B):
        for t in range(T):
            for h in range(H):
                for i in range(R):
                    first, second = x[b, t, h, 0, i], x[b, t, h, 1, i]
                    x[b, t, h, 0, i] = first * cos[t, i] - second * sin[t, i]
                    x[b, t, h, 1, i] = first * sin[t, i] + second * cos[t, i]


@strict
def fused_interleaved(x: Any, cos: Any, sin: Any) -> None:
    """Rotate x (B, T, H, R, 2) by cos, sin (T, R) in place."""
    B, T, H, R, _ = x.shape
    for b in range(B):
        for t in range(T):
            for h in range(H):
                for i in range(R):
                    first, second = x[b, t, h, i, 0], x[b, t, h, i, 1]
                    x[b, t, h, i, 0] = first * cos[t, i] - second * sin[t, i]
                    x[b, t, h, i, 1] = first * sin[t, i] + second * cos[t, i]


def of_pairs(function: Callable[..., None]) -> dict[str, Runner]:
    """Return the runners of a function of pairs (2, B, T, H, R)."""

    def along(axis: int) -> Runner:
        def prepare(call: Call) -> Callable[[], None]:
            x, cos, sin = call.inputs.values()
            return functools.partial(function, np.moveaxis(x, axis, 0), cos, sin)

        return Runner(prepare)

    return {"halves": along(-2), "interleaved": along(-1)}


def of_heads(interleaved: bool) -> Runner:
    """Return the runner of the kernel of training, for rows (B·T) of H heads."""

    def prepare(call: Call) -> Callable[[], None]:
        x, cos, sin = call.inputs.values()
        heads, size = x.shape[2], x[0, 0, 0].size
        tokens = x.reshape(-1, heads * size)

        def part(rows: slice) -> Callable[[], None]:
            return functools.partial(
                trained.forward_heads, tokens[rows], heads, size, cos, sin, interleaved, rows.start
            )

        return call.share(len(tokens), part)

    return Runner(prepare, (trained.forward_heads,))


TRAINED = contiguous({"halves": of_heads(False), "interleaved": of_heads(True)})
RUNGS = [
    Rung("Python", "A loop, one pair at a time.", of_pairs(python), max_flops=5e6),
    Rung("NumPy", "A pass over memory and a new array for each operation.", of_pairs(numpy)),
    Rung("fused", "One loop: each pair is read once and written once.",
         {"halves": direct(fused_halves), "interleaved": direct(fused_interleaved)}),
    Rung("vectors",
         "The angles loaded once for all heads; interleaved pairs are taken apart in registers.",
         TRAINED, trained=True),
    Rung("parallel", "The same kernel, with the tokens split between threads.", TRAINED,
         threads="several", trained=True),
]  # fmt: skip
