"""Cross-entropy with its gradient, from a loop in Python to what training uses.

After each rung, what it gained over the one before, at cpu, lecture and gpt2.

Python: lists and loops.
NumPy: the same in whole arrays, a dozen passes over memory (x26, x29; at gpt2 nobody waits for
    Python).
two kernels: the loops of Python, compiled as they stand: probabilities and losses, then the
    gradient. Fewer passes, but exp is a call for each number (x1.6, x1.4, x1.4).
fused: a row becomes its gradient in its own place, so there is no array of probabilities, and each
    row is still in cache. Nearly all of the time is exp, so this alone is little (x1.06, x1.07,
    x1.18).
vectors: an exp that is a straight line of arithmetic, a maximum without a branch, and sums that
    may be regrouped, so that all loops become vector instructions (x4.2, x4.4, x7.3).
parallel: rows to two threads. Work of less than 0.1 ms is done before the other thread has woken
    (x0.21, x0.41); at gpt2 it pays (x1.6).

Tried on top of vectors, in its time:

- The exponentials computed again in the last pass, not stored: 1.33, 1.35 and 1.26. Even a row of
  50257 is nearer than an exp.
- The same with the share as a part of the exponent, exp(logit - largest - log total), which saves
  the product but takes a logarithm more: 1.5, 1.5 and 1.1.
- The largest and the total in one pass, online, with the polynomial exp: 3.6, 3.7 and 3.9. Each
  number waits for the one before.
- Online by blocks of 512, each with a largest of its own: 3.2, 3.2 and 3.1.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.ladders import Call, Rung, Way
from benchmarks.tasks import plain
from tinygpt_np.compiled.cache import exact
from tinygpt_np.compiled.kernels import cross_entropy as trained
from tinygpt_np.ops import cross_entropy
from tinygpt_np.ops.cross_entropy import IGNORE_INDEX

ops_forward, ops_backward = plain(cross_entropy.forward), plain(cross_entropy.backward)
ZERO = np.float32(0)


def scale_of(targets: np.ndarray) -> np.float32:
    """1/M, which training knows before it begins."""
    return np.float32(1 / max(int((targets != IGNORE_INDEX).sum()), 1))


def python(call: Call) -> Callable[[], Any]:
    logits, targets, losses = call.arrays.values()
    scale = float(scale_of(targets))

    def step() -> None:
        for n, (row, target) in enumerate(zip(logits.tolist(), targets.tolist(), strict=True)):
            if target == IGNORE_INDEX:
                losses[n], logits[n] = 0, 0
                continue
            largest = max(row)
            exps = [math.exp(value - largest) for value in row]
            total = sum(exps)
            losses[n] = math.log(total) + largest - row[target]
            dlogits = [value / total * scale for value in exps]
            dlogits[target] -= scale
            logits[n] = dlogits

    return step


def numpy(call: Call) -> Callable[[], Any]:
    """Returns what the forward saved, for it gives but the mean of the losses."""
    logits, targets = call.inputs.values()

    def step() -> Any:
        _, saved = ops_forward(logits, targets)
        logits[...] = ops_backward(1.0, saved)
        return saved

    return step


def losses_of_saved(call: Call, saved: Any) -> None:
    log_probs, _, chosen, _, _ = saved
    call.outputs["losses"][...] = -(log_probs * chosen).sum(axis=-1)


@exact
def losses_and_probs(logits: Any, targets: Any, probs: Any, losses: Any) -> None:
    for n in range(logits.shape[0]):
        largest, total = logits[n, 0], ZERO
        for v in range(logits.shape[1]):
            largest = max(largest, logits[n, v])
        for v in range(logits.shape[1]):
            probs[n, v] = math.exp(logits[n, v] - largest)
            total += probs[n, v]
        for v in range(logits.shape[1]):
            probs[n, v] /= total
        losses[n] = ZERO
        if targets[n] != IGNORE_INDEX:
            losses[n] = math.log(total) + largest - logits[n, targets[n]]


@exact
def gradient(probs: Any, targets: Any, scale: Any, dlogits: Any) -> None:
    for n in range(probs.shape[0]):
        for v in range(probs.shape[1]):
            counted = targets[n] != IGNORE_INDEX
            dlogits[n, v] = (probs[n, v] - (v == targets[n])) * scale if counted else ZERO


def two_kernels(call: Call) -> Callable[[], Any]:
    logits, targets, losses = call.arrays.values()
    probs, scale = np.empty_like(logits), scale_of(targets)

    def step() -> None:
        losses_and_probs(logits, targets, probs, losses)
        gradient(probs, targets, scale, logits)

    return step


@exact
def fused(logits: Any, targets: Any, scale: Any, losses: Any) -> None:
    for n in range(logits.shape[0]):
        target = targets[n]
        if target == IGNORE_INDEX:
            losses[n] = ZERO
            logits[n] = ZERO
            continue
        logit, largest, total = logits[n, target], logits[n, 0], ZERO
        for v in range(logits.shape[1]):
            largest = max(largest, logits[n, v])
        for v in range(logits.shape[1]):
            logits[n, v] = math.exp(logits[n, v] - largest)
            total += logits[n, v]
        losses[n] = math.log(total) + largest - logit
        for v in range(logits.shape[1]):
            logits[n, v] *= scale / total
        logits[n, target] -= scale


def in_place(kernel: Any) -> Way:
    """Rows shared out to threads; the losses are float64, as those of training are."""

    def prepare(call: Call) -> Callable[[], Any]:
        logits, targets = call.inputs.values()
        losses, scale = np.full(len(targets), np.nan), scale_of(targets)

        def share(rows: slice) -> Callable[[], None]:
            return functools.partial(kernel, logits[rows], targets[rows], scale, losses[rows])

        tasks = [share(rows) for rows in call.shares(len(targets))]

        def step() -> np.ndarray:
            call.run_all(tasks)
            return losses

        return step

    def collect(call: Call, losses: np.ndarray) -> None:
        call.outputs["losses"][...] = losses

    return Way(prepare, (kernel,), collect)


DIRECTION = "loss and gradient"
RUNGS = [
    Rung(
        "Python",
        "Lists and loops, a number at a time.",
        {DIRECTION: Way(python)},
        most=2e7,
    ),
    Rung(
        "NumPy",
        "A pass over memory, and a new array, for each operation.",
        {DIRECTION: Way(numpy, collect=losses_of_saved)},
    ),
    Rung(
        "two kernels",
        "The loops compiled, as they are written: the losses and probabilities, then the gradient.",
        {DIRECTION: Way(two_kernels, (losses_and_probs, gradient))},
    ),
    Rung(
        "fused",
        "A row becomes its gradient in place, while it is near.",
        {DIRECTION: in_place(fused)},
    ),
    Rung(
        "vectors",
        "exp as a polynomial without a branch and sums that may be regrouped: 16 at a time.",
        {DIRECTION: in_place(trained.loss_and_dlogits)},
    ),
    Rung(
        "parallel",
        "The same kernel, rows shared out to threads.",
        {DIRECTION: in_place(trained.loss_and_dlogits)},
        threads="several",
    ),
]
