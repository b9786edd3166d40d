import numpy as np

from tinygpt_np.ops import silu


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu_slope(x, tanh):
    s = (1 + tanh) / 2
    return s + x * s * (1 - s)


def backward_lines(dy, saved):
    activated, up, saved_gate = saved
    # y = activated * up
    dactivated = dy * up
    dup = dy * activated
    # activated, saved_gate = silu.forward(gate)
    dgate = silu.backward(dactivated, saved_gate)
    # gate, up = np.split(x, 2, axis=-1)
    dx = np.concatenate([dgate, dup], axis=-1)
    return dx


def backward_closed(dy, saved):
    activated, up, (gate, tanh) = saved
    return np.concatenate((dy * up * silu_slope(gate, tanh), dy * activated), axis=-1)


def backward_tanh(dy, saved):
    activated, up, (gate, t) = saved
    dgate = dy * up * (2 * (1 + t) + gate * (1 - t**2)) / 4
    return np.append(dgate, dy * activated, axis=-1)


def backward_slices(dy, saved):
    activated, up, (gate, _) = saved
    F = dy.shape[-1]
    s = sigmoid(gate)
    dx = np.empty((*dy.shape[:-1], 2 * F))
    dx[..., F:] = dy * activated
    dx[..., :F] = dy * up * s * (1 + gate * (1 - s))
    return dx


def backward_loops(dy, saved):
    activated, up, (gate, tanh) = saved
    F = up.shape[-1]
    dx = np.zeros(up.shape[:-1] + (2 * F,))
    for row in np.ndindex(up.shape[:-1]):
        for f in range(F):
            slope = silu_slope(gate[row][f], tanh[row][f])
            dx[row][f] = dy[row][f] * up[row][f] * slope
            dx[row][F + f] = dy[row][f] * activated[row][f]
    return dx


def backward_comprehension(dy, saved):
    def row(g, a, u, x, t):
        return [*(g * u * silu_slope(x, t)), *(g * a)]

    activated, up, (gate, tanh) = saved
    F = up.shape[-1]
    arrays = [each.reshape(-1, F) for each in (dy, activated, up, gate, tanh)]
    rows = [row(*values) for values in zip(*arrays)]
    return np.array(rows).reshape(*dy.shape[:-1], 2 * F)


def backward_jacobians(dy, saved):
    activated, up, (gate, tanh) = saved
    dx = []
    for i in np.ndindex(dy.shape[:-1]):
        by_gate = np.diag(up[i] * silu_slope(gate[i], tanh[i]))
        by_up = np.diag(activated[i])
        dx.append(dy[i] @ np.hstack([by_gate, by_up]))
    return np.reshape(dx, (*dy.shape[:-1], -1))


def backward_einsum(dy, saved):
    activated, up, (gate, tanh) = saved
    dgate = np.einsum("...f,...f,...f->...f", dy, up, silu_slope(gate, tanh))
    dup = np.einsum("...f,...f->...f", dy, activated)
    return np.stack([dgate, dup], axis=-2).reshape(dy.shape[:-1] + (2 * dy.shape[-1],))


def backward_output(dy, saved):
    # silu' = silu + σ (1 - silu)
    a, up, (gate, tanh) = saved
    slope = a + (1 + tanh) / 2 * (1 - a)
    factors = np.concatenate([slope * up, a], axis=-1)
    return factors * np.concatenate([dy, dy], axis=-1)


def backward_in_place(dy, saved):
    activated, up, (gate, tanh) = saved
    dx = np.concatenate([up, activated], axis=-1)
    dx *= np.tile(dy, 2)
    dgate, _ = np.split(dx, 2, axis=-1)
    dgate *= silu_slope(gate, tanh)
    return dx
