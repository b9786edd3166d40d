import numpy as np


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def backward_lines(dy, saved):
    x, tanh = saved
    gate = (1 + tanh) / 2
    # y = x * gate
    dx = dy * gate
    dgate = dy * x
    # gate = raised / 2
    draised = dgate / 2
    # raised = 1 + tanh
    dtanh = draised
    # tanh = np.tanh(half)
    dhalf = dtanh * (1 - tanh**2)
    # half = x / 2
    dx = dx + dhalf / 2
    return dx


def backward_closed(dy, saved):
    x, tanh = saved
    gate = 0.5 + 0.5 * tanh
    return dy * gate * (1 + x * (1 - gate))


def backward_tanh(dy, saved):
    x, t = saved
    return dy * (1 + t) * (2 + x * (1 - t)) / 4


def backward_sigmoid(dy, saved):
    x, _ = saved
    s = sigmoid(x)
    ds = s * sigmoid(-x)
    return s * dy + x * ds * dy


def backward_output(dy, saved):
    # y' = y + σ (1 - y)
    x, tanh = saved
    s = (tanh + 1) / 2
    y = x * s
    return (y + s - s * y) * dy


def backward_cosh(dy, saved):
    x, tanh = saved
    through_gate = x / (4 * np.cosh(x / 2) ** 2)
    return np.multiply(dy, (1 + tanh) / 2 + through_gate)


def backward_loops(dy, saved):
    x, tanh = saved
    dx = np.empty(x.shape)
    for i in np.ndindex(x.shape):
        s = (1 + tanh[i]) / 2
        dx[i] = dy[i] * (s + x[i] * s * (1 - s))
    return dx


def backward_comprehension(dy, saved):
    def slope(v, t):
        return 0.5 * (1 + t) + 0.25 * v * (1 - t * t)

    slopes = [slope(v, t) for v, t in zip(np.ravel(saved[0]), np.ravel(saved[1]))]
    return dy * np.array(slopes).reshape(dy.shape)


def backward_jacobian(dy, saved):
    x, tanh = (np.ravel(each) for each in saved)
    gate = np.diag((1 + tanh) / 2)
    jacobian = gate + np.diag(x) @ gate @ (np.eye(x.size) - gate)
    return (np.ravel(dy) @ jacobian).reshape(dy.shape)


def backward_in_place(dy, saved):
    x, tanh = saved
    s = np.array(tanh)
    s += 1
    s /= 2
    dx = 1 - s
    dx *= x
    dx += 1
    dx *= s
    dx *= dy
    return dx
