import math

import numba
import numpy as np


@numba.njit
def probabilities(qkv):
    B, T, _, H, D = qkv.shape
    probs, scale = np.zeros((B, H, T, T), np.float32), np.float32(1 / math.sqrt(D))
    for b, h, t in np.ndindex(B, H, T):
        largest, total = np.float32(-np.inf), np.float32(0)
        for s in range(t + 1):
            score = np.float32(0)
            for d in range(D):
                score += qkv[b, t, 0, h, d] * qkv[b, s, 1, h, d]
            probs[b, h, t, s] = score * scale
            largest = max(largest, score * scale)
        for s in range(t + 1):
            probs[b, h, t, s] = math.exp(probs[b, h, t, s] - largest)
            total += probs[b, h, t, s]
        for s in range(t + 1):
            probs[b, h, t, s] /= total
    return probs


@numba.njit
def forward(qkv, y):
    probs = probabilities(qkv)
    y[...] = 0
    B, T, H, D = y.shape
    for b, h, t in np.ndindex(B, H, T):
        for s in range(t + 1):
            for d in range(D):
                y[b, t, h, d] += probs[b, h, t, s] * qkv[b, s, 2, h, d]


# Called untimed with inputs of the forward; `saved` is what it returns.
def backward_save(qkv):
    return probabilities(qkv)


@numba.njit
def backward(dy, qkv, dqkv, saved):
    dqkv[...] = 0
    B, T, H, D = dy.shape
    scale, dprobs = np.float32(1 / math.sqrt(D)), np.empty(T, np.float32)
    for b, h, t in np.ndindex(B, H, T):
        mean = np.float32(0)
        for s in range(t + 1):
            dprobs[s] = 0
            for d in range(D):
                dprobs[s] += dy[b, t, h, d] * qkv[b, s, 2, h, d]
            mean += saved[b, h, t, s] * dprobs[s]
        for s in range(t + 1):
            prob = saved[b, h, t, s]
            dscore = prob * (dprobs[s] - mean) * scale
            for d in range(D):
                dqkv[b, t, 0, h, d] += dscore * qkv[b, s, 1, h, d]
                dqkv[b, s, 1, h, d] += dscore * qkv[b, t, 0, h, d]
                dqkv[b, s, 2, h, d] += prob * dy[b, t, h, d]
