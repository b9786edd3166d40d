import numpy as np


def update(
    param, grad, first, second,
    scale, learning_rate, weight_decay, beta1, beta2, epsilon, correction1, correction2,
):  # fmt: skip
    g = grad * scale
    first += (1 - beta1) * (g - first)
    second += (1 - beta2) * (g * g - second)
    param *= 1 - learning_rate * weight_decay
    param -= learning_rate / correction1 * first / (np.sqrt(second / correction2) + epsilon)
