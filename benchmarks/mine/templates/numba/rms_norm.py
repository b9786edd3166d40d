import math

import numba
import numpy as np

EPSILON = np.float32(1e-5)


@numba.njit(fastmath=True)
def forward(stream, weight, normed):
    N, C = stream.shape
    for n in range(N):
        square = np.float32(0)
        for c in range(C):
            square += stream[n, c] * stream[n, c]
        rstd = np.float32(1) / math.sqrt(square / np.float32(C) + EPSILON)
        for c in range(C):
            normed[n, c] = stream[n, c] * rstd * weight[c]


@numba.njit(fastmath=True)
def backward(dnormed, stream, weight, rstd, dstream, dweight):
    N, C = stream.shape
    dweight[...] = 0
    for n in range(N):
        slope = np.float32(0)
        for c in range(C):
            xhat = stream[n, c] * rstd[n]
            slope += dnormed[n, c] * weight[c] * xhat
            dweight[c] += dnormed[n, c] * xhat
        slope /= np.float32(C)
        for c in range(C):
            dstream[n, c] = (dnormed[n, c] * weight[c] - stream[n, c] * rstd[n] * slope) * rstd[n]
