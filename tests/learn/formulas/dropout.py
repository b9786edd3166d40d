import numpy as np


def scaled(mask, shape):
    return np.ones(shape) if mask is None else mask


def backward_if(dy, saved):
    (mask,) = saved
    # y = x.copy() if mask is None else x * mask
    if mask is None:
        dx = dy.copy()
    else:
        dx = dy * mask
    return dx


def backward_one_expression(dy, saved):
    return dy * (1.0 if saved[0] is None else saved[0])


def backward_ones(dy, saved):
    return scaled(saved[0], dy.shape) * dy


def backward_in_place(dy, saved):
    dx = np.array(dy)
    if saved[0] is not None:
        dx *= saved[0]
    return dx


def backward_kept_places(dy, saved):
    mask = saved[0]
    if mask is None:
        return +dy
    dx = np.zeros(dy.shape)
    kept = mask != 0
    dx[kept] = dy[kept] * mask[kept]
    return dx


def backward_where(dy, saved):
    mask = saved[0]
    if mask is None:
        return 0 + dy
    scale = mask.max()  # 1/(1 - p)
    return np.where(mask > 0, dy * scale, 0)


def backward_loops(dy, saved):
    (mask,) = saved
    dx = np.zeros_like(dy)
    for i in np.ndindex(dy.shape):
        dx[i] = dy[i] if mask is None else dy[i] * mask[i]
    return dx


def backward_comprehension(dy, saved):
    factors = [1.0] * dy.size if saved[0] is None else saved[0].ravel()
    return np.array([g * f for g, f in zip(dy.ravel(), factors)]).reshape(dy.shape)


def backward_einsum(dy, saved):
    if saved[0] is None:
        return np.einsum("...,->...", dy, 1.0)
    return np.einsum("...,...->...", dy, saved[0])


def backward_jacobian(dy, saved):
    def jacobian(mask):
        return np.eye(dy.size) if mask is None else np.diag(np.ravel(mask))

    return np.reshape(jacobian(saved[0]) @ np.ravel(dy), dy.shape)
