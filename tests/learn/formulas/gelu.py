import numpy as np


def u_of(x):
    return np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)


def slope_of_u(x):
    return np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x**2)


def backward_lines(dy, saved):
    x, tanh = saved
    # y = x * gate
    dx = dy * (1 + tanh) / 2
    dgate = dy * x
    # gate = raised / 2
    draised = dgate / 2
    # raised = 1 + tanh
    dtanh = draised
    # tanh = np.tanh(inner)
    dinner = dtanh * (1 - tanh * tanh)
    # inner = SQRT_2_OVER_PI * bent
    dbent = dinner * (2 / np.pi) ** 0.5
    # bent = x + bend
    dx = dx + dbent
    dbend = dbent
    # bend = CUBIC * cube
    dcube = 0.044715 * dbend
    # cube = square * x
    dsquare = dcube * x
    dx = dx + dcube * x * x
    # square = x * x
    dx = dx + dsquare * x * 2
    return dx


def backward_closed(dy, saved):
    x, tanh = saved
    gate = 0.5 * (1 + tanh)
    return dy * (gate + 0.5 * x * (1 - tanh**2) * slope_of_u(x))


def backward_cosh(dy, saved):
    x, tanh = saved
    sech2 = 1 / np.cosh(u_of(x)) ** 2
    return dy * ((1 + tanh) / 2 + x / 2 * sech2 * slope_of_u(x))


def backward_sigmoid(dy, saved):
    # ½ (1 + tanh u) = sigmoid(2u)
    x, tanh = saved
    s = (tanh + 1) / 2
    ds = s * (1 - s) * 2 * slope_of_u(x)
    return dy * s + dy * x * ds


def backward_loops(dy, saved):
    x, t = saved
    dx = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        du = np.sqrt(2 / np.pi) * (1 + 0.134145 * x[i] ** 2)
        dx[i] = dy[i] * (0.5 + 0.5 * t[i] + 0.5 * x[i] * (1 - t[i] ** 2) * du)
    return dx


def backward_comprehension(dy, saved):
    def slope(v, t):
        return (1 + t) / 2 + v * (1 - t) * (1 + t) / 2 * slope_of_u(v)

    x, tanh = saved
    slopes = [slope(v, t) for v, t in zip(x.ravel(), tanh.ravel())]
    return np.reshape(slopes, x.shape) * dy


def backward_jacobian(dy, saved):
    x, tanh = saved
    slope = (1 + tanh + x * (1 - tanh**2) * slope_of_u(x)) / 2
    jacobian = np.diag(slope.ravel())
    return (jacobian @ dy.ravel()).reshape(dy.shape)


def backward_in_place(dy, saved):
    x, tanh = saved
    dx = np.array(tanh)
    dx **= 2
    dx -= 1
    dx *= -x
    dx *= slope_of_u(x)
    dx += tanh
    dx += 1
    dx *= dy
    dx /= 2
    return dx


def backward_polynomial(dy, saved):
    x, _ = saved
    u = np.poly1d([0.044715, 0, 1, 0]) * (2 / np.pi) ** 0.5
    tanh = np.tanh(u(x))
    slope = (1 + tanh) / 2 + x * (1 - tanh**2) / 2 * u.deriv()(x)
    return slope * dy


def backward_exponentials(dy, saved):
    x, tanh = saved
    e = np.exp(-2 * np.abs(u_of(x)))
    derivative_of_tanh = 4 * e / (1 + e) ** 2
    through_gate = np.einsum("...,...,...->...", x, derivative_of_tanh, slope_of_u(x))
    return 0.5 * dy * (1 + tanh + through_gate)
