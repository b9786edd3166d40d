import math

import numpy as np


def normal_density(x):
    return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


def backward_lines(dy, saved):
    x, scaled, cdf = saved
    # y = x * cdf
    dx = dy * cdf
    dcdf = dy * x
    # cdf = raised / 2
    draised = dcdf / 2
    # raised = 1 + erf
    derf = draised
    # erf = error_function(scaled)
    dscaled = derf * 2 / np.sqrt(np.pi) * np.exp(-scaled * scaled)
    # scaled = x / SQRT_2
    dx = dx + dscaled / np.sqrt(2)
    return dx


def backward_closed(dy, saved):
    x, _, cdf = saved
    return dy * (cdf + x * np.exp(-0.5 * x * x) / (2 * np.pi) ** 0.5)


def backward_helper(dy, saved):
    x, scaled, cdf = saved
    slope = cdf + x * normal_density(x)
    return slope * dy


def backward_loops(dy, saved):
    x, scaled, cdf = saved
    dx = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        pdf = math.exp(-(scaled[i] ** 2)) / math.sqrt(2 * math.pi)
        dx[i] = dy[i] * cdf[i] + dy[i] * x[i] * pdf
    return dx


def backward_comprehension(dy, saved):
    values = zip(dy.ravel(), saved[0].ravel(), saved[2].ravel())
    return np.array([g * (c + v * normal_density(v)) for g, v, c in values]).reshape(dy.shape)


def backward_jacobian(dy, saved):
    x, scaled, cdf = saved
    pdf = np.exp(-(scaled**2)) / (2 * np.pi) ** 0.5
    slopes = np.ravel(cdf + x * pdf)
    return np.reshape(np.ravel(dy) @ np.diag(slopes), np.shape(dy))


def backward_in_place(dy, saved):
    x, scaled, cdf = saved
    dx = np.array(scaled)
    dx *= -scaled
    np.exp(dx, out=dx)
    dx *= scaled
    dx /= np.pi**0.5
    dx += cdf
    dx *= dy
    return dx


def backward_math_erf(dy, saved):
    x, scaled, _ = saved
    erf = np.vectorize(math.erf)(scaled)
    derf = 2 / math.sqrt(math.pi) * np.exp(-np.square(scaled))
    # y = x/2 + x erf(x/√2)/2
    return dy / 2 + dy * erf / 2 + dy * x / 2 * derf / math.sqrt(2)


def backward_product_rule(dy, saved):
    x, scaled, cdf = saved

    def product_rule(a, da, b, db):
        return a * db + b * da

    log_density = -0.5 * x**2 - 0.5 * np.log(2 * np.pi)
    return dy * product_rule(x, 1, cdf, np.exp(log_density))


def backward_einsum(dy, saved):
    x, scaled, cdf = saved
    density = np.e ** (-scaled * scaled) * (1 / np.sqrt(2 * np.pi))
    direct = np.einsum("...,...->...", dy, cdf)
    through_cdf = np.einsum("...,...,...->...", dy, x, density)
    return direct + through_cdf
