"""Cross-entropy with its gradient, from a loop in Python to the kernel of training.

Speedups are over the rung before, at cpu, lecture and gpt2.

NumPy: a dozen passes over memory (x26, x29; Python is too slow for gpt2).
fused: few passes, but exp is a call per element (x1.7, x1.5; x1.7 at gpt2). An array of
    probabilities costs little, 1.06 to 1.18 times, because nearly all of the time is exp.
vectors: with a branch-free maximum too, all loops are vectorised (x4.2, x4.4, x7.3).
parallel: two threads. Less than 0.1 ms of work is done before the other has woken up (x0.21,
    x0.41); at gpt2 it pays off (x1.6).

Tried on top of vectors; times relative to it:

- Recomputing the exponentials in the last pass instead of storing them: 1.33, 1.35, 1.26. Loading
  is cheaper than exp even for a row of 50257.
- The same with the normalisation in the exponent, exp(logit - max - log sum), which saves a
  product but needs the logarithm first: 1.5, 1.5, 1.1.
- Maximum and sum in one pass (online) with the polynomial exp: 3.6, 3.7, 3.9. Each element depends
  on the one before.
- Online by blocks of 512, each with its own maximum: 3.2, 3.2, 3.1.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import unchecked
from benchmarks.ladders import Call, Rung, Runner, collected, compiled_only
from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.kernels import cross_entropy as trained
from tinygpt_np.ops import cross_entropy
from tinygpt_np.ops.cross_entropy import IGNORE_INDEX

ops_forward, ops_backward = unchecked(cross_entropy.forward), unchecked(cross_entropy.backward)
ZERO = np.float32(0)


def python(logits: np.ndarray, targets: np.ndarray, scales: np.ndarray, losses: np.ndarray) -> None:
    """logits (N, V), targets (N,) -> losses (N,), and dlogits in place of the logits."""
    (scale,) = scales.tolist()
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


def numpy(call: Call) -> Callable[[], Any]:
    """Return a step that returns what the forward saved, since it returns the mean loss only."""
    logits, targets = call.inputs.values()

    def step() -> Any:
        _, saved = ops_forward(logits, targets)
        logits[...] = ops_backward(1.0, saved)
        return saved

    return step


def losses_of_saved(call: Call, saved: Any) -> None:
    """Compute the loss of each row from what the forward saved."""
    log_probs, _, chosen, _, _ = saved
    call.outputs["losses"][...] = -(log_probs * chosen).sum(axis=-1)


@strict
def fused(logits: Any, targets: Any, scales: Any, losses: Any) -> None:
    """logits (N, V), targets (N,) -> losses (N,), and dlogits in place of the logits."""
    scale = scales[0]
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


def in_place(function: Any) -> Runner:
    """Return the runner of a function, its rows split between threads; losses are float64."""

    def prepare(call: Call) -> Callable[[], Any]:
        logits, targets = call.inputs.values()
        losses = np.full(len(targets), np.nan)
        run: list[Callable[[], Any]] = []

        def save() -> None:
            # Training knows 1/M beforehand.
            scale = np.array([1 / max(int((targets != IGNORE_INDEX).sum()), 1)], np.float32)

            def part(rows: slice) -> Callable[[], None]:
                return functools.partial(function, logits[rows], targets[rows], scale, losses[rows])

            run[:] = [call.share(len(targets), part)]

        def step() -> np.ndarray:
            run[0]()
            return losses

        call.saves.append(save)
        return step

    return collected(prepare, compiled=compiled_only(function))


DIRECTION = "loss and gradient"
RUNGS = [
    Rung("Python", "Lists and loops, one element at a time.", {DIRECTION: in_place(python)},
         max_flops=2e7),
    Rung("NumPy", "A pass over memory and a new array for each operation.",
         {DIRECTION: Runner(numpy, collect=losses_of_saved)}),
    Rung("fused", "A row is replaced by its gradient in place, while it is in cache.",
         {DIRECTION: in_place(fused)}),
    Rung("vectors",
         "A branch-free polynomial exp and sums that may be reordered: 16 elements at a time.",
         {DIRECTION: in_place(trained.loss_and_dlogits)}, trained=True),
    Rung("parallel", "The same kernel, with the rows split between threads.",
         {DIRECTION: in_place(trained.loss_and_dlogits)}, threads="several", trained=True),
]  # fmt: skip
