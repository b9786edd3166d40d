import math

import numpy as np
import pytest
from helpers.kernel_bounds import U, assert_within, gamma
from helpers.kernel_twins import normals

from tinygpt_np.compiled.kernels import adamw
from tinygpt_np.config import ADAM_EPSILON
from tinygpt_np.model import optimizer as optim

_, normal = normals(18)
sizes = pytest.mark.parametrize("size", [1, 2, 7, 15, 16, 17, 127, 1000, 70001])
RATE, DECAY, BETA1, BETA2 = 3e-3, 0.1, 0.9, 0.99


@sizes
@pytest.mark.parametrize("weight_decay", [0.0, DECAY])
@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("step", [1, 5])
def test_an_update_is_the_truth_but_for_rounding(
    size: int, weight_decay: float, scale: float, step: int
) -> None:
    param, grad = normal(size), normal(size)
    grad[::2] = 0  # As in the rows of tokens that a batch does not have.
    first, second = normal(size), normal(size) ** 2
    param64, grad64, first64, second64 = (
        array.astype(np.float64)[None] for array in (param, grad, first, second)
    )
    # The optimizer itself, on a matrix of one row (a vector would not decay).
    truth = optim.AdamW({"w": param64}, BETA1, BETA2, weight_decay)
    truth.steps = step - 1
    g = grad64 * scale
    # Sizes of the terms, for the bounds below, from before anything moves.
    size1 = np.abs(first64) + (1 - BETA1) * (np.abs(g) + np.abs(first64))
    size2 = second64 + (1 - BETA2) * (g * g + second64)
    old = np.abs(param64)
    truth.first["w"], truth.second["w"] = first64.copy(), second64.copy()
    truth.update({"w": param64}, {"w": g}, RATE)

    corrections = 1 - BETA1**step, 1 - BETA2**step
    before = grad.copy()
    adamw.update(param, grad, first, second, scale, RATE, weight_decay, BETA1, BETA2, *corrections)
    np.testing.assert_array_equal(grad, before)
    # The scale and its product, a difference, 1 - beta and its product, a sum.
    bound1 = gamma(6) * size1
    assert_within(first, truth.first["w"][0], bound1[0])
    # The same with g twice.
    bound2 = gamma(9) * size2
    assert_within(second, truth.second["w"][0], bound2[0])
    # The root halves the relative error of `second`; the rest is the correction and its quotient,
    # the root, epsilon and its sum, the rate and its product, the quotient.
    new2 = truth.second["w"]
    denominator = np.sqrt(new2 / corrections[1]) + ADAM_EPSILON
    rate = RATE / corrections[0]
    move = rate * np.abs(truth.first["w"]) / denominator
    dmove = rate * bound1 / denominator + move * (bound2 / (2 * new2) + gamma(8))
    # The decay's factor and product; the difference.
    bound = 1.01 * dmove + gamma(2) * old + U * (old + move)
    assert_within(param, param64[0], bound[0])


@sizes
def test_the_sum_of_squares_is_that_of_float64(size: int) -> None:
    grad = normal(size)
    truth = math.fsum(float(g) ** 2 for g in grad)
    # Squares of float32 are exact in float64; a sum of them rounds each time by 2**-53.
    assert abs(adamw.sum_of_squares(grad) - truth) <= size * 2.0**-53 * truth


def test_the_sum_of_squares_survives_what_overflows_float32() -> None:
    assert adamw.sum_of_squares(np.full(5, 1e30, np.float32)) == pytest.approx(5e60, rel=1e-6)


def test_the_sum_of_squares_is_the_same_wherever_the_array_begins() -> None:
    grad = normal(1013)
    expected = adamw.sum_of_squares(grad)
    for offset in range(1, 17):
        moved = np.empty(1013 + offset, np.float32)[offset:]
        moved[...] = grad
        assert adamw.sum_of_squares(moved) == expected


def test_a_nan_gradient_is_a_nan_norm() -> None:
    grad = normal(37)
    grad[18] = np.nan
    assert np.isnan(adamw.sum_of_squares(grad))
