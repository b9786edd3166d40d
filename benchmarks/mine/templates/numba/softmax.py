import math

import numba
import numpy as np


@numba.njit
def forward(x, probs):
    for n in range(x.shape[0]):
        largest, total = x[n, 0], np.float32(0)
        for v in range(x.shape[1]):
            largest = max(largest, x[n, v])
        for v in range(x.shape[1]):
            probs[n, v] = math.exp(x[n, v] - largest)
            total += probs[n, v]
        for v in range(x.shape[1]):
            probs[n, v] /= total


@numba.njit
def backward(dprobs, probs, dx):
    for n in range(probs.shape[0]):
        mean = np.float32(0)
        for v in range(probs.shape[1]):
            mean += dprobs[n, v] * probs[n, v]
        for v in range(probs.shape[1]):
            dx[n, v] = probs[n, v] * (dprobs[n, v] - mean)
