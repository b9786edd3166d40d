"""Softmax, from a loop in Python to what attention and the loss are made with.

After each rung, what it gained over the one before, at cpu and at lecture (forward; backward).

Python: lists and loops.
NumPy: the same in whole arrays (x50, x45; x146, x124).
three passes: the loops of Python, compiled as they stand. Fewer passes over memory, but exp is
    now a call for each number, where NumPy has one for vectors (x0.83, x0.64; x2.0, x2.4).
online: one pass less over x. But each number then waits for the one before, whose largest it must
    be compared with, and exp is called for it twice (x0.56, x0.57). The trick pays where memory is
    slow and exp is cheap; here a row stays in cache, and exp is nearly all of the time.
vectors: back to three passes, with an exp that is a straight line of arithmetic, a maximum without
    a branch, and sums that may be regrouped, so that all three loops become vector instructions
    (x13, x16; x4.0, x2.7).
parallel: rows to two threads. Work of less than 0.1 ms is done before the other thread has woken
    (x0.17, x0.75; x0.13, x0.55); at gpt2 it pays (x1.7; x1.6).

Tried on top of vectors, in its time:

- Only one of its two ideas. With the C library's exp 4.6 at cpu and 5.8 at lecture, with sums in
  order 6.1 and 7.6: a loop that holds one call, or one chain of sums, is no vector loop.
- The exponentials computed again in the last pass, not stored: 1.4 and 1.7. A load costs less.
- The total in a loop of its own, as NumPy has it: 1.1 and 1.2.
- online with the polynomial exp: 9 and 11. The chain remains.
- Vectors by hand, not by the compiler: 0.85 to 1.1, and 1.0.
- In the backward, the products that make the mean kept in dx: 1.2 and 1.0.
"""

import math
from typing import Any

import numpy as np

from benchmarks.ladders import Rung, by_rows, direct
from benchmarks.tasks import plain
from tinygpt_np.compiled.cache import exact
from tinygpt_np.compiled.kernels import softmax as trained
from tinygpt_np.ops import softmax

backward = plain(softmax.backward)


def python_forward(x: np.ndarray, probs: np.ndarray) -> None:
    for n, row in enumerate(x.tolist()):
        largest = max(row)
        exps = [math.exp(value - largest) for value in row]
        total = sum(exps)
        probs[n] = [value / total for value in exps]


def python_backward(dprobs: np.ndarray, probs: np.ndarray, dx: np.ndarray) -> None:
    for n, (upstream, row) in enumerate(zip(dprobs.tolist(), probs.tolist(), strict=True)):
        mean = sum(a * b for a, b in zip(upstream, row, strict=True))
        dx[n] = [p * (d - mean) for d, p in zip(upstream, row, strict=True)]


def numpy_forward(x: np.ndarray, probs: np.ndarray) -> None:
    probs[...] = softmax.forward(x)[0]


def numpy_backward(dprobs: np.ndarray, probs: np.ndarray, dx: np.ndarray) -> None:
    dx[...] = backward(dprobs, (probs, None))


@exact
def three_passes(x: Any, probs: Any) -> None:
    for n in range(x.shape[0]):
        largest = x[n, 0]
        for v in range(x.shape[1]):
            largest = max(largest, x[n, v])
        total = np.float32(0)
        for v in range(x.shape[1]):
            probs[n, v] = math.exp(x[n, v] - largest)
            total += probs[n, v]
        for v in range(x.shape[1]):
            probs[n, v] /= total


@exact
def two_passes_back(dprobs: Any, probs: Any, dx: Any) -> None:
    for n in range(probs.shape[0]):
        mean = np.float32(0)
        for v in range(probs.shape[1]):
            mean += dprobs[n, v] * probs[n, v]
        for v in range(probs.shape[1]):
            dx[n, v] = probs[n, v] * (dprobs[n, v] - mean)


@exact
def online(x: Any, probs: Any) -> None:
    for n in range(x.shape[0]):
        largest, total = x[n, 0], np.float32(1)
        for v in range(1, x.shape[1]):
            if x[n, v] > largest:
                total = total * math.exp(largest - x[n, v]) + np.float32(1)
                largest = x[n, v]
            else:
                total += math.exp(x[n, v] - largest)
        for v in range(x.shape[1]):
            probs[n, v] = math.exp(x[n, v] - largest) / total


RUNGS = [
    Rung(
        "Python",
        "Lists and loops, a number at a time.",
        {"forward": direct(python_forward), "backward": direct(python_backward)},
        most=2e7,
    ),
    Rung(
        "NumPy",
        "A pass over memory, and a new array, for each operation.",
        {"forward": direct(numpy_forward), "backward": direct(numpy_backward)},
    ),
    Rung(
        "three passes",
        "The loops of Python compiled, as they are written, a number at a time.",
        {"forward": direct(three_passes), "backward": direct(two_passes_back)},
    ),
    Rung(
        "online",
        "The largest and the total in one pass: the total is scaled when a larger one turns up.",
        {"forward": direct(online)},
    ),
    Rung(
        "vectors",
        "exp as a polynomial without a branch and sums that may be regrouped: 16 at a time.",
        {"forward": direct(trained.forward_rows), "backward": direct(trained.backward_rows)},
    ),
    Rung(
        "parallel",
        "The same kernel, rows shared out to threads.",
        {"forward": by_rows(trained.forward_rows), "backward": by_rows(trained.backward_rows)},
        threads="several",
    ),
]
