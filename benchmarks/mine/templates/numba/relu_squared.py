import numba
import numpy as np

ZERO, TWO = np.float32(0), np.float32(2)


@numba.njit
def forward(hidden, squares):
    for i in range(hidden.size):
        squares[i] = hidden[i] * hidden[i] if hidden[i] > ZERO else ZERO


@numba.njit
def backward(dsquares, hidden, dhidden):
    for i in range(hidden.size):
        dhidden[i] = TWO * dsquares[i] * hidden[i] if hidden[i] > ZERO else ZERO
