import math

import numba
import numpy as np

EPSILON = np.float32(1e-5)


@numba.njit(fastmath=True)
def forward(x, weight, bias, y):
    N, C = x.shape
    for n in range(N):
        mean, var = np.float32(0), np.float32(0)
        for c in range(C):
            mean += x[n, c]
        mean /= np.float32(C)
        for c in range(C):
            var += (x[n, c] - mean) * (x[n, c] - mean)
        rstd = np.float32(1) / math.sqrt(var / np.float32(C) + EPSILON)
        for c in range(C):
            y[n, c] = (x[n, c] - mean) * rstd * weight[c] + bias[c]


@numba.njit(fastmath=True)
def backward(dy, x, weight, mean, rstd, dx, dweight, dbias):
    N, C = x.shape
    dweight[...] = 0
    dbias[...] = 0
    for n in range(N):
        ones, slope = np.float32(0), np.float32(0)
        for c in range(C):
            xhat = (x[n, c] - mean[n]) * rstd[n]
            ones += dy[n, c] * weight[c]
            slope += dy[n, c] * weight[c] * xhat
            dweight[c] += dy[n, c] * xhat
            dbias[c] += dy[n, c]
        ones /= np.float32(C)
        slope /= np.float32(C)
        for c in range(C):
            xhat = (x[n, c] - mean[n]) * rstd[n]
            dx[n, c] = (dy[n, c] * weight[c] - ones - xhat * slope) * rstd[n]
