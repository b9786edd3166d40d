"""Cross-entropy: the mean negative log-probability of the targets, in nats.

    L = -1/M Σ_n log p_n[target_n],  p_n = softmax(logits_n)      logits: (N, V)   targets: (N,)

over the M rows whose target is not -1; rows with a target of -1 are ignored. A model that knows
nothing gives every token the probability 1/V and has the loss ln V.

Derivation of the closed form, one row, t its target:

    L = log Σ_j exp(l_j) - l_t      ⇒      ∂L/∂l_i = p_i - [i = t],  [i = t] is 1 if i = t, else 0

The mean gives the factor 1/M. So the gradient is the predicted minus the target probability, times
1/M, and each row of dlogits sums to zero. Common mistakes: the 1/M forgotten (the learning rate
then depends on the batch size), and M taken as N when some targets are ignored.
Source: "Let's build GPT" 00:22:11; makemore part 4, exercise 2.
"""

from typing import Any

import numpy as np

IGNORE_INDEX = -1


def forward(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """logits (N, V), targets (N,) integers in [0, V) or -1 -> loss (), saved.

    The loss is 0 if every target is -1.
    """
    counted = targets != IGNORE_INDEX  # (N,)
    count = max(int(counted.sum()), 1)
    columns = np.arange(logits.shape[-1], dtype=np.int64)  # (V,)
    chosen = columns == targets[:, None]  # (N, V)
    largest = np.real(logits).max(axis=-1, keepdims=True)  # (N, 1)
    shifted = logits - largest  # (N, V)
    exps = np.exp(shifted)  # (N, V)
    total = exps.sum(axis=-1, keepdims=True)  # (N, 1)
    log_total = np.log(total)  # (N, 1)
    log_probs = shifted - log_total  # (N, V)
    picked = log_probs * chosen  # (N, V)
    summed = picked.sum()  # ()
    loss = summed / -count  # ()
    return loss, (log_probs, total, chosen, counted, count)


def backward_steps(dloss: np.ndarray | float, saved: tuple[Any, ...]) -> np.ndarray:
    """dloss () -> dlogits (N, V), line for line."""
    log_probs, total, chosen, _, count = saved
    exps = np.exp(log_probs) * total  # (N, V)
    # loss = summed / -count
    dsummed = float(dloss) / -count  # ()
    # summed = picked.sum()
    dpicked = np.full_like(log_probs, dsummed)  # (N, V)
    # picked = log_probs * chosen
    dlog_probs = dpicked * chosen  # (N, V)
    # log_probs = shifted - log_total
    dshifted = dlog_probs.copy()  # (N, V)
    dlog_total = -dlog_probs.sum(axis=-1, keepdims=True)  # (N, 1)
    # log_total = np.log(total)
    dtotal = dlog_total / total  # (N, 1)
    # total = exps.sum(axis=-1, keepdims=True)
    dexps = np.zeros_like(exps) + dtotal  # (N, V)
    # exps = np.exp(shifted)
    dshifted += dexps * exps  # (N, V)
    # shifted = logits - largest
    dlogits = dshifted  # (N, V)
    return dlogits


def backward(dloss: np.ndarray | float, saved: tuple[Any, ...]) -> np.ndarray:
    """dloss () -> dlogits (N, V), in closed form."""
    log_probs, _, chosen, counted, count = saved
    probs = np.exp(log_probs)  # (N, V)
    dlogits = (probs - chosen) * counted[:, None] * (float(dloss) / count)  # (N, V)
    return dlogits
