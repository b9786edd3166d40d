import numpy as np

from tinygpt_np.ops import relu


def backward_lines(dy, saved):
    rectified, saved_relu = saved
    # y = rectified * rectified
    drectified = dy * rectified + rectified * dy
    # rectified, saved_relu = relu.forward(x)
    dx = relu.backward(drectified, saved_relu)
    return dx


def backward_closed(dy, saved):
    return 2 * saved[0] * dy


def backward_where(dy, saved):
    r, (passes,) = saved
    return np.where(passes, 2 * dy * r, 0.0)


def backward_mask(dy, saved):
    rectified, (passes,) = saved
    slope_of_square = rectified + rectified
    slope_of_relu = passes * 1.0
    return dy * slope_of_square * slope_of_relu


def backward_loops(dy, saved):
    r, (passes,) = saved
    dx = np.zeros_like(r)
    for i in np.ndindex(r.shape):
        if r[i] > 0:
            dx[i] = 2 * r[i] * dy[i]
    return dx


def backward_comprehension(dy, saved):
    r = np.ravel(saved[0])
    return np.array([g * 2 * v for g, v in zip(np.ravel(dy), r)]).reshape(np.shape(dy))


def backward_jacobian(dy, saved):
    r = saved[0].ravel()
    dx = np.diag(2 * r) @ dy.ravel()
    return dx.reshape(dy.shape)


def backward_in_place(dy, saved):
    r, (passes,) = saved
    dx = np.array(dy)
    dx *= r
    dx[~passes] = 0
    dx += dx
    return dx


def backward_root(dy, saved):
    y = saved[0] ** 2
    # dy/dx = 2 √y
    return np.sqrt(4 * y) * dy


def backward_einsum(dy, saved):
    def relu_backward(g, passes):
        return np.multiply(g, passes)

    r, (passes,) = saved
    dr = np.einsum(",...,...->...", 2.0, r, dy)
    return relu_backward(dr, passes)
