import numpy as np


def square(a):
    return a * a


def backward_lines(dy, saved):
    tanh, cap = saved
    # y = cap * tanh
    dtanh = cap * dy
    # tanh = np.tanh(scaled)
    dscaled = dtanh * (1 - tanh * tanh)
    # scaled = x / cap
    dx = dscaled / cap
    return dx


def backward_closed(dy, saved):
    return (1 - saved[0] ** 2) * dy


def backward_factors(dy, saved):
    t, _ = saved
    return dy * (1 - t) * (1 + t)


def backward_output(dy, saved):
    tanh, cap = saved
    y = cap * tanh
    return dy * (cap**2 - y**2) / cap**2


def backward_difference(dy, saved):
    tanh, _ = saved
    return dy - dy * square(tanh)


def backward_einsum(dy, saved):
    tanh = saved[0]
    return np.subtract(dy, np.einsum("...,...,...->...", dy, tanh, tanh))


def backward_loops(dy, saved):
    tanh, cap = saved
    dx = np.zeros(dy.shape)
    for i in np.ndindex(dy.shape):
        dx[i] = dy[i] * cap * (1 - tanh[i] ** 2) * (1 / cap)
    return dx


def backward_comprehension(dy, saved):
    def slope(t):
        return 1 - t**2

    slopes = np.array([slope(t) for t in np.ravel(saved[0])])
    return slopes.reshape(dy.shape) * dy


def backward_jacobian(dy, saved):
    tanh, cap = saved
    J = cap * np.diag(1 - np.ravel(tanh) ** 2) / cap
    return (J @ dy.ravel()).reshape(dy.shape)


def backward_in_place(dy, saved):
    dx = np.array(saved[0])
    dx *= dx
    np.subtract(1, dx, out=dx)
    dx *= dy
    return dx
