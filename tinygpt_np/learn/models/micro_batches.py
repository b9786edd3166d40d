"""Micro-batches: the mean loss of a batch that is processed in two parts of different sizes.

    loss = N/(N+K) loss_1 + K/(N+K) loss_2

    x_1: (N, C)   x_2: (K, C)   weight: (C, V)   targets_1: (N,)   targets_2: (K,)

loss_1 and loss_2 are the mean losses of the two parts, as ops.cross_entropy returns them.

Derivation. The mean over all rows is the sum of the losses of all rows, divided by N + K. The sum
over a part is its mean times its number of rows, so each mean has the weight of its share of rows:

    1/(N+K) (N loss_1 + K loss_2) = share_1 loss_1 + share_2 loss_2
    ∂L/∂loss_1  = ∂L/∂loss share_1
    ∂L/∂weight  = the part through logits_1 + the part through logits_2

The weight is read once for each part, so its gradient is a sum over the micro-batches. The
result is that of one batch of N + K rows.
Common mistakes: shares of 1/2, which give the rows of a small last part too much weight; and
`dweight = …` for each part, so that only the last one counts.
"""

from typing import Any

import numpy as np

from tinygpt_np.ops import cross_entropy, linear


def forward(
    x_1: np.ndarray,
    x_2: np.ndarray,
    weight: np.ndarray,
    targets_1: np.ndarray,
    targets_2: np.ndarray,
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Return the mean loss () over the rows of both micro-batches, and saved.

    x_1: (N, C)
    x_2: (K, C)
    weight: (C, V)
    targets_1: (N,) integers in [0, V)
    targets_2: (K,) integers in [0, V)
    """
    share_1 = len(targets_1) / (len(targets_1) + len(targets_2))
    share_2 = len(targets_2) / (len(targets_1) + len(targets_2))
    logits_1, saved_linear_1 = linear.forward(x_1, weight)  # (N, V)
    loss_1, saved_loss_1 = cross_entropy.forward(logits_1, targets_1)  # ()
    part_1 = loss_1 * share_1  # ()
    logits_2, saved_linear_2 = linear.forward(x_2, weight)  # (K, V)
    loss_2, saved_loss_2 = cross_entropy.forward(logits_2, targets_2)  # ()
    part_2 = loss_2 * share_2  # ()
    loss = part_1 + part_2  # ()
    return loss, (share_1, share_2, saved_linear_1, saved_loss_1, saved_linear_2, saved_loss_2)


def backward(
    dloss: np.ndarray, saved: tuple[Any, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dloss () -> dx_1 (N, C), dx_2 (K, C), dweight (C, V)."""
    share_1, share_2, saved_linear_1, saved_loss_1, saved_linear_2, saved_loss_2 = saved
    # loss = part_1 + part_2
    dpart_1 = dloss  # ()
    dpart_2 = dloss  # ()
    # part_2 = loss_2 * share_2
    dloss_2 = dpart_2 * share_2  # ()
    # loss_2, saved_loss_2 = cross_entropy.forward(logits_2, targets_2)
    dlogits_2 = cross_entropy.backward(dloss_2, saved_loss_2)  # (K, V)
    # logits_2, saved_linear_2 = linear.forward(x_2, weight)
    dx_2, dweight, _ = linear.backward(dlogits_2, saved_linear_2)  # (K, C), (C, V)
    # part_1 = loss_1 * share_1
    dloss_1 = dpart_1 * share_1  # ()
    # loss_1, saved_loss_1 = cross_entropy.forward(logits_1, targets_1)
    dlogits_1 = cross_entropy.backward(dloss_1, saved_loss_1)  # (N, V)
    # logits_1, saved_linear_1 = linear.forward(x_1, weight)
    dx_1, dweight_1, _ = linear.backward(dlogits_1, saved_linear_1)  # (N, C), (C, V)
    dweight += dweight_1  # (C, V)
    return dx_1, dx_2, dweight
