import math

import numba
import numpy as np

ONE = np.float32(1)


@numba.njit
def forward(halves, y):
    N, F = y.shape
    for n in range(N):
        for i in range(F):
            y[n, i] = halves[n, 0, i] / (ONE + math.exp(-halves[n, 0, i])) * halves[n, 1, i]


@numba.njit
def backward(dy, halves, dhalves):
    N, F = dy.shape
    for n in range(N):
        for i in range(F):
            gate = ONE / (ONE + math.exp(-halves[n, 0, i]))
            slope = gate + halves[n, 0, i] * gate * (ONE - gate)
            dhalves[n, 0, i] = dy[n, i] * halves[n, 1, i] * slope
            dhalves[n, 1, i] = dy[n, i] * halves[n, 0, i] * gate
