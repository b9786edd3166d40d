import numpy as np


def step(passes):
    return passes.astype(float)


def backward_mask(dy, saved):
    (passes,) = saved
    # y = np.where(passes, x, 0)
    dx = dy * passes
    return dx


def backward_where(dy, saved):
    return np.where(saved[0], dy, 0)


def backward_in_place(dy, saved):
    dx = np.array(dy)
    dx[~saved[0]] = 0
    return dx


def backward_assign(dy, saved):
    passes = saved[0]
    dx = np.zeros_like(dy)
    dx[passes] = dy[passes]
    return dx


def backward_loops(dy, saved):
    (passes,) = saved
    dx = np.zeros(dy.shape)
    for i in np.ndindex(dy.shape):
        if passes[i]:
            dx[i] = dy[i]
    return dx


def backward_comprehension(dy, saved):
    pairs = zip(dy.flat, np.ravel(saved[0]))
    return np.array([g if p else 0.0 for g, p in pairs]).reshape(dy.shape)


def backward_einsum(dy, saved):
    return np.einsum("...,...->...", dy, saved[0].astype(dy.dtype))


def backward_jacobian(dy, saved):
    (passes,) = saved
    jacobian = np.diag(step(np.ravel(passes)))
    return (jacobian @ dy.ravel()).reshape(dy.shape)


def backward_subtract(dy, saved):
    blocked = np.logical_not(saved[0])
    return dy - dy * blocked


def backward_select(dy, saved):
    def slope(passes):
        return np.select([passes], [1.0], default=0.0)

    return slope(saved[0]) * dy
