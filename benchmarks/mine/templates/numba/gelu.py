import math

import numba
import numpy as np

SCALE, CUBIC = np.float32(math.sqrt(2 / math.pi)), np.float32(0.044715)
HALF, ONE, THREE = np.float32(0.5), np.float32(1), np.float32(3)


@numba.njit
def forward(x, y):
    for i in range(x.size):
        tanh = math.tanh(SCALE * (x[i] + CUBIC * x[i] * x[i] * x[i]))
        y[i] = HALF * x[i] * (ONE + tanh)


@numba.njit
def backward(dy, x, dx):
    for i in range(x.size):
        square = x[i] * x[i]
        tanh = math.tanh(SCALE * (x[i] + CUBIC * square * x[i]))
        bend = (ONE - tanh * tanh) * SCALE * (ONE + THREE * CUBIC * square)
        dx[i] = HALF * dy[i] * (ONE + tanh + x[i] * bend)
