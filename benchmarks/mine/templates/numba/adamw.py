import math

import numba


@numba.njit
def update(
    param, grad, first, second,
    scale, learning_rate, weight_decay, beta1, beta2, epsilon, correction1, correction2,
):  # fmt: skip
    for i in range(param.size):
        g = grad[i] * scale
        first[i] += (1 - beta1) * (g - first[i])
        second[i] += (1 - beta2) * (g * g - second[i])
        denominator = math.sqrt(second[i] / correction2) + epsilon
        param[i] *= 1 - learning_rate * weight_decay
        param[i] -= learning_rate / correction1 * first[i] / denominator
