"""Attention, from whole matrices of scores to the tiles that training uses.

After each rung, what it gained over the one before, at cpu and at lecture (forward; backward).

NumPy: whole matrices, half of them hidden, but the products are those of a BLAS.
materialised: the same in loops, compiled as they stand. A score is one chain of D sums, each of
    which waits for the one before (x0.37, x0.15; x0.28, x0.20).
causal skip: what is hidden is half of the pairs (x2.0, x2.0; x2.0, x1.9).
vectors: sums that may be regrouped, so that a score is a few vectors, and an exp that is a
    straight line of arithmetic (x3.0, x3.8; x1.9, x2.4).
online: nothing of T x T is kept, the idea of FlashAttention, which on its own saves no time here:
    the probabilities fit in the caches, exp is back to one number at a time, and a backward makes
    the scores again (x0.66, x0.75; x0.77, x0.79).
tiled: a number that was loaded is used many times. Of a few queries all scores are there at once,
    products are register tiles over packed panels, and exp goes 16 at a time (x4.9, x5.9; x4.2,
    x5.2). Scores again only a tile at a time, and none are kept.
parallel: texts to two threads. Work of 0.1 ms is done before the other thread has woken, and of
    three texts one thread has two (x0.4; x0.8); at lecture it came to x1.1 and x2.0.

Tried, in the time of the rung beside it:

- vectors, forward, with the keys turned, so that a row of scores grows over all keys at once: 1.37
  at cpu, 0.95 at lecture. The rows at cpu are short, and turning is not free.
- online, forward, 16 keys at a time, as FlashAttention has it, so that exp is vectors and the rest
  is scaled once for 16: 0.87 and 1.06. Scores and sums over values are still all of the time.
- parallel, forward, with heads shared out instead of texts: 0.97 and 0.95, and training has texts.
- NumPy, forward, in tiles of 64 queries with the keys that one of them sees: 0.77 and 0.51. It
  helps, being two of the ideas above without a compiler, and takes 4.5 and 3.4 times as long as
  tiled.
- Rows as views in the loops, a[b, t, h] instead of a[b, t, h, d]: up to 1.6 for online and 3 for
  its backward. Numba counts who holds a view, for each pair of tokens anew.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.ladders import Call, Rung, Way
from benchmarks.tasks import plain
from tinygpt_np.compiled.cache import exact, kernel
from tinygpt_np.compiled.kernels import attention as trained
from tinygpt_np.compiled.kernels.attention import NO_MASK
from tinygpt_np.compiled.kernels.elementary import exp, maximum
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.ops import attention

ops_forward, ops_backward = plain(attention.forward), plain(attention.backward)
ZERO, ONE, MINUS_INFINITY = np.float32(0), np.float32(1), np.float32(-np.inf)


def rows(array: np.ndarray) -> np.ndarray:
    """The same memory as the rows (N, 3C) or (N, C) that training has."""
    B, T = array.shape[:2]
    return array.reshape(B * T, -1)


def make(call: Call, letters: str) -> np.ndarray:
    return np.empty([call.sizes[letter] for letter in letters], np.float32)


def numpy_forward(call: Call) -> Callable[[], Any]:
    qkv, y = rows(call.inputs["qkv"]), rows(call.outputs["y"])

    def step() -> None:
        y[...] = ops_forward(qkv, call.sizes["B"], call.sizes["H"])[0]

    return step


def numpy_backward(call: Call) -> Callable[[], Any]:
    qkv, dy = rows(call.inputs["qkv"]), rows(call.inputs["dy"])
    dqkv = rows(call.outputs["dqkv"])
    _, saved = ops_forward(qkv, call.sizes["B"], call.sizes["H"])

    def step() -> None:
        dqkv[...] = ops_backward(dy, saved)

    return step


@exact
def in_order(total: Any, a: Any, b: Any) -> Any:
    return total + a * b


@kernel
def regrouped(total: Any, a: Any, b: Any) -> Any:
    return total + a * b


def make_loops(add: Any, exp: Any, skip: bool) -> dict[str, Way]:
    """Loops that keep all probabilities, as a forward does for its backward.

    add: total + a·b, by which it is chosen whether sums may be regrouped. skip: whether what is
    hidden is left out.
    """

    @exact
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

    @exact
    def backward(qkv: Any, dy: Any, probs: Any, dprobs: Any, dqkv: Any) -> None:
        batch, time, _, heads, size = qkv.shape
        scale = np.float32(1 / math.sqrt(size))
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
        probs = make(call, "BHTT")
        return functools.partial(forward, call.inputs["qkv"], probs, call.outputs["y"])

    def prepare_backward(call: Call) -> Callable[[], Any]:
        (qkv, dy), probs = call.inputs.values(), make(call, "BHTT")
        forward(qkv, probs, np.empty_like(dy))
        return functools.partial(backward, qkv, dy, probs, make(call, "T"), call.outputs["dqkv"])

    return {
        "forward": Way(prepare_forward, (forward,)),
        "backward": Way(prepare_backward, (backward,)),
    }


@kernel
def online(qkv: Any, y: Any, log_total: Any) -> None:
    batch, time, _, heads, size = qkv.shape
    scale = np.float32(1 / math.sqrt(size))
    for b, h, t in np.ndindex(batch, heads, time):
        largest, total = MINUS_INFINITY, ZERO
        for d in range(size):
            y[b, t, h, d] = ZERO
        for s in range(t + 1):
            score = ZERO
            for d in range(size):
                score += qkv[b, t, 0, h, d] * qkv[b, s, 1, h, d]
            score *= scale
            if score > largest:
                share = exp(largest - score)
                total *= share
                for d in range(size):
                    y[b, t, h, d] *= share
                largest = score
            prob = exp(score - largest)
            total += prob
            for d in range(size):
                y[b, t, h, d] += prob * qkv[b, s, 2, h, d]
        for d in range(size):
            y[b, t, h, d] /= total
        log_total[b, h, t] = largest + np.float32(math.log(total))


@kernel
def online_back(qkv: Any, dy: Any, y: Any, log_total: Any, dqkv: Any) -> None:
    batch, time, _, heads, size = qkv.shape
    scale = np.float32(1 / math.sqrt(size))
    dqkv[...] = ZERO
    for b, h, t in np.ndindex(batch, heads, time):
        delta = ZERO
        for d in range(size):
            delta += dy[b, t, h, d] * y[b, t, h, d]
        for s in range(t + 1):
            score, dprob = ZERO, ZERO
            for d in range(size):
                score += qkv[b, t, 0, h, d] * qkv[b, s, 1, h, d]
            for d in range(size):
                dprob += dy[b, t, h, d] * qkv[b, s, 2, h, d]
            prob = exp(score * scale - log_total[b, h, t])
            dscore = prob * (dprob - delta) * scale
            for d in range(size):
                dqkv[b, t, 0, h, d] += dscore * qkv[b, s, 1, h, d]
            for d in range(size):
                dqkv[b, s, 1, h, d] += dscore * qkv[b, t, 0, h, d]
            for d in range(size):
                dqkv[b, s, 2, h, d] += prob * dy[b, t, h, d]


def online_forward(call: Call) -> Callable[[], Any]:
    return functools.partial(online, call.inputs["qkv"], call.outputs["y"], make(call, "BHT"))


def online_backward(call: Call) -> Callable[[], Any]:
    (qkv, dy), log_total = call.inputs.values(), make(call, "BHT")
    y = np.empty_like(dy)
    online(qkv, y, log_total)
    return functools.partial(online_back, qkv, dy, y, log_total, call.outputs["dqkv"])


def tiled(call: Call, direction: str) -> Callable[[], Any]:
    """Texts are shared out to threads, each with memory of its own, as training does it."""
    sizes, tasks = call.sizes, list[Callable[[], Any]]()
    B, H, T, D = (sizes[name] for name in "BHTD")
    every = np.empty((B, H, T, 2), np.float32)
    for texts in call.shares(B):
        arrays = {name: rows(array[texts]) for name, array in call.arrays.items()}
        qkv, stats = arrays["qkv"], every[texts]
        y = arrays["y"] if direction == "forward" else np.empty_like(arrays["dy"])
        rooms = room, tiles, _, panels = trained.make_rooms(Arena(), T, D)
        forward = functools.partial(
            trained.forward_texts, qkv, H, NO_MASK, y, stats, 0, len(stats) * H, room, tiles,
            panels,
        )  # fmt: skip
        if direction == "forward":
            tasks.append(forward)
            continue
        forward()
        backward = functools.partial(
            trained.backward_texts, arrays["dy"], qkv, H, NO_MASK, stats, arrays["dqkv"], 0,
            len(stats) * H, *rooms,
        )  # fmt: skip
        tasks.append(backward)
    return functools.partial(call.run_all, tasks)


TILED = {
    "forward": Way(functools.partial(tiled, direction="forward"), (trained.forward_texts,)),
    "backward": Way(functools.partial(tiled, direction="backward"), (trained.backward_texts,)),
}
RUNGS = [
    Rung(
        "NumPy",
        "All pairs in whole matrices: products, a mask, and a new array for each operation.",
        {"forward": Way(numpy_forward), "backward": Way(numpy_backward)},
    ),
    Rung(
        "materialised",
        "The loops compiled, as they are written: all pairs of a head, what is hidden as well.",
        make_loops(in_order, math.exp, skip=False),
    ),
    Rung(
        "causal skip",
        "Only what is visible is computed, a row of probabilities at a time.",
        make_loops(in_order, math.exp, skip=True),
    ),
    Rung(
        "vectors",
        "The same, but sums may be regrouped and exp has no branch: 16 numbers at a time.",
        make_loops(regrouped, exp, skip=True),
    ),
    Rung(
        "online",
        "Key by key with a running largest and total; no probabilities are kept.",
        {
            "forward": Way(online_forward, (online,)),
            "backward": Way(online_backward, (online_back,)),
        },
    ),
    Rung(
        "tiled",
        "A few queries at a time with many keys: products in registers, exp in vectors.",
        TILED,
    ),
    Rung(
        "parallel",
        "The same kernel, texts shared out to threads.",
        TILED,
        threads="several",
    ),
]
