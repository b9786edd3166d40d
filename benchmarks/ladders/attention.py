"""Causal attention, from full matrices of scores to the tiles that training uses.

Speedups are over the rung before, at cpu and at lecture (forward; backward).

materialised: NumPy's products are those of a BLAS; here a score is a serial sum of D products
    (x0.37, x0.15; x0.28, x0.20).
causal skip: half of all pairs (x2.0, x2.0; x2.0, x1.9).
vectors: a score takes a few vectors (x3.0, x3.8; x1.9, x2.4).
tiled: each loaded element is used many times. Products are register tiles over packed panels, and
    scores exist only for a tile (x3.2, x4.4; x3.2, x4.1).
parallel: two threads. 0.1 ms of work is done before the other thread has woken up, and of three
    sequences one thread has two (x0.4; x0.8); at lecture x1.1 and x2.0.

Tried; times relative to the rung named:

- vectors, forward, with transposed keys, so that a row of scores is summed over all keys at once:
  1.37 at cpu, 0.95 at lecture. Rows are short at cpu, and transposing is not free.
- Online, key by key with a running maximum and sum, the idea of FlashAttention: 1.5, 1.3 of
  vectors; in the backward, which recomputes the scores, 1.30, 1.27. The probabilities fit the
  caches anyway. 16 keys at a time, so that exp is vectorised: 0.87, 1.06 of that.
- parallel, forward, by heads instead of sequences: 0.97, 0.95.
- NumPy, forward, in tiles of 64 queries with their visible keys: 0.77, 0.51. Two of the ideas
  above without a compiler; it takes 4.5 and 3.4 times as long as tiled.
- Rows as views in the loops, a[b, t, h] instead of a[b, t, h, d]: up to 1.6 for online and 3 for
  its backward. Numba counts the references of a view, for each pair of tokens.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import shape_of, unchecked
from benchmarks.ladders import Call, Rung, Runner, both, contiguous, in_numpy
from tinygpt_np.compiled.cache import kernel, strict
from tinygpt_np.compiled.kernels import attention as trained
from tinygpt_np.compiled.kernels.attention import NO_MASK
from tinygpt_np.compiled.kernels.elementary import exp, maximum
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.ops import attention

ops_forward, ops_backward = unchecked(attention.forward), unchecked(attention.backward)
ZERO, ONE, MINUS_INFINITY = np.float32(0), np.float32(1), np.float32(-np.inf)


def rows(array: np.ndarray) -> np.ndarray:
    """Return the array as rows (N, 3C) or (N, C), as in training; no copy."""
    B, T = array.shape[:2]
    return array.reshape(B * T, -1)


def numpy_forward(qkv: np.ndarray) -> tuple[np.ndarray, Any]:
    """qkv (B, T, 3, H, D) -> y (N, C), saved."""
    return ops_forward(rows(qkv), len(qkv), qkv.shape[3])


def numpy_backward(dy: np.ndarray, saved: Any) -> np.ndarray:
    """dy (B, T, H, D) -> dqkv (N, 3C)."""
    return ops_backward(rows(dy), saved)


def make(call: Call, letters: str) -> np.ndarray:
    """Return a new array whose shape is given in letters."""
    return np.empty(shape_of(letters, call.sizes), np.float32)


@strict
def in_order(total: Any, a: Any, b: Any) -> Any:
    """total + a·b; sums of these stay in order."""
    return total + a * b


@kernel
def reordered(total: Any, a: Any, b: Any) -> Any:
    """total + a·b; sums of these may be reordered."""
    return total + a * b


def make_loops(add: Any, exp: Any, skip: bool) -> dict[str, Runner]:
    """Return loops that keep all probabilities for the backward.

    add: total + a·b, which determines whether sums may be reordered. skip: whether masked pairs are
    skipped.
    """

    @strict
    def forward(qkv: Any, probs: Any, y: Any) -> None:
        batch, time, _, heads, size = qkv.shape
        scale = np.float32(1 / math.sqrt(size))
        for b, h, t in np.ndindex(batch, heads, time):
            end, largest, total = t + 1 if skip else time, MINUS_INFINITY, ZERO
            for s in range(end):
                score = ZERO
                for d in range(size):
                    score = add(score, qkv[b, t, 0, h, d], qkv[b, s, 1, h, d])
                probs[b, h, t, s] = score * scale if s <= t else MINUS_INFINITY
            for s in range(end):
                largest = maximum(largest, probs[b, h, t, s])
            for s in range(end):
                probs[b, h, t, s] = exp(probs[b, h, t, s] - largest)
                total = add(total, ONE, probs[b, h, t, s])
            for d in range(size):
                y[b, t, h, d] = ZERO
            for s in range(end):
                prob = probs[b, h, t, s] / total
                probs[b, h, t, s] = prob
                for d in range(size):
                    y[b, t, h, d] = add(y[b, t, h, d], prob, qkv[b, s, 2, h, d])

    @strict
    def backward(dy: Any, qkv: Any, probs: Any, dqkv: Any) -> None:
        batch, time, _, heads, size = qkv.shape
        scale, dprobs = np.float32(1 / math.sqrt(size)), np.empty(time, np.float32)
        dqkv[...] = ZERO
        for b, h, t in np.ndindex(batch, heads, time):
            end, mean = t + 1 if skip else time, ZERO
            for s in range(end):
                dprob = ZERO
                for d in range(size):
                    dprob = add(dprob, dy[b, t, h, d], qkv[b, s, 2, h, d])
                mean = add(mean, probs[b, h, t, s], dprob)
                dprobs[s] = dprob
            for s in range(end):
                prob = probs[b, h, t, s]
                dscore = prob * (dprobs[s] - mean) * scale
                for d in range(size):
                    dqkv[b, t, 0, h, d] += dscore * qkv[b, s, 1, h, d]
                for d in range(size):
                    dqkv[b, s, 1, h, d] += dscore * qkv[b, t, 0, h, d]
                for d in range(size):
                    dqkv[b, s, 2, h, d] += prob * dy[b, t, h, d]

    def prepare_forward(call: Call) -> Callable[[], Any]:
        return functools.partial(
            forward, *call.inputs.values(), make(call, "BHTT"), call.outputs["y"]
        )

    def prepare_backward(call: Call) -> Callable[[], Any]:
        (dy, qkv), probs = call.inputs.values(), make(call, "BHTT")
        call.saves.append(functools.partial(forward, qkv, probs, np.empty_like(dy)))
        return functools.partial(backward, dy, qkv, probs, call.outputs["dqkv"])

    return both(Runner(prepare_forward, (forward,)), Runner(prepare_backward, (backward,)))


def tiled(call: Call, direction: str) -> Callable[[], Any]:
    """Return the kernel of training, its sequences split between threads with own scratch."""
    B, H, T, D = (call.sizes[name] for name in "BHTD")
    every = np.empty((B, H, T, 2), np.float32)

    def part(sequences: slice) -> Callable[[], Any]:
        arrays = {name: rows(array[sequences]) for name, array in call.arrays.items()}
        qkv, stats = arrays["qkv"], every[sequences]
        y = arrays["y"] if direction == "forward" else np.empty_like(arrays["dy"])
        heads, scratch = len(stats) * H, trained.make_scratch(Arena(), T, D)
        forward = functools.partial(
            trained.forward_heads, qkv, H, H, NO_MASK, y, stats, 0, heads, scratch
        )
        if direction == "forward":
            return forward
        call.saves.append(forward)
        return functools.partial(
            trained.backward_heads, arrays["dy"], qkv, H, H, NO_MASK, stats, arrays["dqkv"], 0,
            heads, scratch,
        )  # fmt: skip

    return call.share(B, part)


TILED = contiguous(both(
    Runner(functools.partial(tiled, direction="forward"), (trained.forward_heads,)),
    Runner(functools.partial(tiled, direction="backward"), (trained.backward_heads,)),
))  # fmt: skip
RUNGS = [
    Rung("NumPy",
         "All pairs in full matrices: products, a mask, and a new array for each operation.",
         in_numpy(numpy_forward, numpy_backward, lambda inputs: numpy_forward(inputs["qkv"])[1])),
    Rung("materialised",
         "The loops compiled as written: all pairs of a head, including masked ones.",
         make_loops(in_order, math.exp, skip=False)),
    Rung("causal skip", "Only visible pairs are computed, a row of probabilities at a time.",
         make_loops(in_order, math.exp, skip=True)),
    Rung("vectors",
         "The same with sums that may be reordered and a branch-free exp: 16 elements at a time.",
         make_loops(reordered, exp, skip=True)),
    Rung("tiled", "A few queries at a time with many keys: products in registers, vectorised exp.",
         TILED, trained=True),
    Rung("parallel", "The same kernel, with the sequences split between threads.", TILED,
         threads="several", trained=True),
]  # fmt: skip
