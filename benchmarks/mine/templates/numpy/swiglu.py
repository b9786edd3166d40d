import numpy as np


def forward(halves, y):
    gate, up = halves[:, 0], halves[:, 1]
    y[...] = gate / (1 + np.exp(-gate)) * up


def backward(dy, halves, dhalves):
    gate, up = halves[:, 0], halves[:, 1]
    sigmoid = 1 / (1 + np.exp(-gate))
    dhalves[:, 0] = dy * up * (sigmoid + gate * sigmoid * (1 - sigmoid))
    dhalves[:, 1] = dy * gate * sigmoid
