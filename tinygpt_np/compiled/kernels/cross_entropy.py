"""Cross-entropy, compiled. The derivation is in ops/cross_entropy.py; targets are not checked."""

import math
from typing import Any

import numpy as np

from tinygpt_np.compiled.cache import kernel
from tinygpt_np.compiled.kernels.elementary import exp, maximum
from tinygpt_np.compiled.simd.arrays import floats, integers
from tinygpt_np.ops.cross_entropy import IGNORE_INDEX

MINUS_INFINITY = np.float32(-np.inf)
ZERO, ONE = np.float32(0), np.float32(1)


@kernel
def exponentials(rows: Any, n: Any) -> Any:
    """Replace row n by exp(row - largest); return the largest and their sum."""
    largest = MINUS_INFINITY
    for v in range(rows.shape[1]):
        largest = maximum(largest, rows[n, v])
    total = ZERO
    for v in range(rows.shape[1]):
        rows[n, v] = exp(rows[n, v] - largest)
        total += rows[n, v]
    return largest, total


@kernel
def loss_of(logit: Any, largest: Any, total: Any) -> Any:
    """Return -log of the probability of a logit, in float64."""
    return math.log(np.float64(total)) + (np.float64(largest) - np.float64(logit))


@kernel
def forward_rows(logits: Any, targets: Any, probs: Any, losses: Any) -> None:
    """Write probs (N, V) and losses (N,) float64, 0 for targets of -1. probs may be logits."""
    for n in range(logits.shape[0]):
        target = targets[n]
        logit = logits[n, max(target, 0)]
        if probs.ctypes.data != logits.ctypes.data:
            for v in range(logits.shape[1]):
                probs[n, v] = logits[n, v]
        largest, total = exponentials(probs, n)
        inverse = ONE / total
        for v in range(logits.shape[1]):
            probs[n, v] *= inverse
        losses[n] = 0.0 if target == IGNORE_INDEX else loss_of(logit, largest, total)


@kernel
def backward_rows(probs: Any, targets: Any, scale: Any, dlogits: Any) -> None:
    """Write dlogits (N, V) = (probs - onehot) · scale, 0 for targets of -1. It may be probs."""
    factor = np.float32(scale)
    for n in range(probs.shape[0]):
        target = targets[n]
        if dlogits.ctypes.data != probs.ctypes.data:
            for v in range(probs.shape[1]):
                dlogits[n, v] = probs[n, v]
        if target == IGNORE_INDEX:
            for v in range(probs.shape[1]):
                dlogits[n, v] = ZERO
        else:
            dlogits[n, target] -= ONE
            for v in range(probs.shape[1]):
                dlogits[n, v] *= factor


@kernel
def loss_and_dlogits(logits: Any, targets: Any, scale: Any, losses: Any) -> None:
    """Write losses (N,) float64, and replace logits (N, V) by (probs - onehot) · scale[0].

    A target of -1 gives a loss of 0 and a row of zeros. scale (1,) is float32.
    """
    factor = scale[0]
    for n in range(logits.shape[0]):
        target = targets[n]
        if target == IGNORE_INDEX:
            losses[n] = 0.0
            for v in range(logits.shape[1]):
                logits[n, v] = ZERO
        else:
            logit = logits[n, target]
            largest, total = exponentials(logits, n)
            losses[n] = loss_of(logit, largest, total)
            scaled = factor / total
            for v in range(logits.shape[1]):
                logits[n, v] *= scaled
            logits[n, target] -= factor


def forward(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """logits (N, V), targets (N,) integers in [0, V) or -1 -> loss (), saved.

    With every target at -1 there is nothing to average, and the loss is 0.
    """
    logits = floats(logits, "cross_entropy.forward: logits")  # (N, V)
    targets = integers(targets, "cross_entropy.forward: targets")  # (N,)
    count = max(int((targets != IGNORE_INDEX).sum()), 1)
    probs = np.empty_like(logits)  # (N, V)
    losses = np.empty(targets.size)  # (N,)
    forward_rows(logits, targets, probs, losses)
    loss = (losses.sum() / count).astype(np.float32)  # ()
    return loss, (probs, targets, count)


def backward(dloss: np.ndarray | float, saved: tuple[Any, ...]) -> np.ndarray:
    """dloss () -> dlogits (N, V), in closed form."""
    probs, targets, count = saved
    dlogits = np.empty_like(probs)  # (N, V)
    backward_rows(probs, targets, float(dloss) / count, dlogits)
    return dlogits
