import math

import numba
import numpy as np


@numba.njit
def loss_and_gradient(logits, targets, losses):
    N, V = logits.shape
    count = 0
    for n in range(N):
        count += targets[n] >= 0
    scale = np.float32(1 / max(count, 1))
    for n in range(N):
        target = targets[n]
        if target < 0:
            losses[n] = 0
            logits[n] = 0
            continue
        logit, largest, total = logits[n, target], logits[n, 0], np.float32(0)
        for v in range(V):
            largest = max(largest, logits[n, v])
        for v in range(V):
            logits[n, v] = math.exp(logits[n, v] - largest)
            total += logits[n, v]
        losses[n] = math.log(total) + largest - logit
        for v in range(V):
            logits[n, v] *= scale / total
        logits[n, target] -= scale
