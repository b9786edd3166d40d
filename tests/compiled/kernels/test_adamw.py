import math

import numpy as np
import pytest
from helpers.kernel_twins import SIZES, assert_within, normals, wide

from benchmarks.cases.rounding import U, gamma
from tinygpt_np.compiled.kernels import adamw
from tinygpt_np.config import ADAM_EPSILON
from tinygpt_np.model import optimizer as optim

_, normal = normals(18)
RATE, BETA1, BETA2 = 3e-3, 0.9, 0.99


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("weight_decay", "scale", "step"), [(0.0, 1.0, 1), (0.1, 0.3, 5)])
def test_an_update_is_the_truth_but_for_rounding(
    size: int, weight_decay: float, scale: float, step: int
) -> None:
    param, grad, first, second = normal(size), normal(size), normal(size), normal(size) ** 2
    grad[::2] = 0  # As in the rows of tokens that a batch does not have.
    # The optimizer itself, on a matrix of one row (a vector would not decay).
    true_param, g, m, v = (array[None] for array in wide(param, grad, first, second))
    g *= scale
    truth = optim.AdamW({"w": true_param}, BETA1, BETA2, weight_decay)
    truth.steps, truth.first["w"], truth.second["w"] = step - 1, m.copy(), v.copy()
    # The scale and its product, a difference, 1 - beta and its product, a sum; the same with g
    # twice. Terms have these sizes before anything moves.
    bound1 = gamma(6) * (np.abs(m) + (1 - BETA1) * (np.abs(g) + np.abs(m)))
    bound2 = gamma(9) * (v + (1 - BETA2) * (g * g + v))
    old = np.abs(true_param)
    truth.update({"w": true_param}, {"w": g}, RATE)

    corrections = 1 - BETA1**step, 1 - BETA2**step
    recipe = np.array([scale, RATE, weight_decay, BETA1, BETA2, *corrections])
    adamw.update(param, grad, first, second, recipe)
    m, v = truth.first["w"], truth.second["w"]
    assert_within(first, m[0], bound1[0])
    assert_within(second, v[0], bound2[0])
    # The root halves the relative error of `second`; the rest is the correction and its quotient,
    # the root, epsilon and its sum, the rate and its product, the quotient.
    per_first = RATE / corrections[0] / (np.sqrt(v / corrections[1]) + ADAM_EPSILON)
    move = per_first * np.abs(m)
    dmove = per_first * bound1 + move * (bound2 / (2 * v) + gamma(8))
    # The decay's factor and product; the difference.
    bound = 1.01 * dmove + gamma(2) * old + U * (old + move)
    assert_within(param, true_param[0], bound[0])


@pytest.mark.parametrize("size", SIZES)
def test_an_element_has_the_same_bits_in_any_part_and_only_its_own_may_be_nan(size: int) -> None:
    arrays = [normal(1000 + size), normal(1000 + size), normal(1000 + size)]
    arrays.append(normal(1000 + size) ** 2)
    part, place = slice(37, 37 + size), size // 2
    arrays[1][37 + place] = np.nan
    recipe = np.array([0.3, RATE, 0.1, BETA1, BETA2, 1 - BETA1**5, 1 - BETA2**5])
    parts = [array[part].copy() for array in arrays]
    # Not where a vector, or a cache line, begins in the whole.
    adamw.update(*parts, recipe)
    adamw.update(*arrays, recipe)
    for found, whole in zip(parts, arrays, strict=True):
        np.testing.assert_array_equal(found, whole[part])
        assert np.flatnonzero(np.isnan(found)).tolist() == [place]


@pytest.mark.parametrize("size", SIZES)
def test_the_sum_of_squares_is_that_of_float64_wherever_the_array_begins(size: int) -> None:
    grad = normal(size) * np.float32(1e30)  # Their squares overflow float32.
    truth = math.fsum(float(g) ** 2 for g in grad)
    found, sums = adamw.sum_of_squares(grad), np.ones(3)
    adamw.write_sum_of_squares(grad, sums, 1)
    assert sums.tolist() == [1, found, 1]
    # Squares of float32 are exact in float64; a sum of them rounds each time by 2**-53.
    assert abs(found - truth) <= size * 2.0**-53 * truth
    for offset in (1, 5, 16):
        moved = np.empty(size + offset, np.float32)[offset:]
        moved[...] = grad
        assert adamw.sum_of_squares(moved) == found
    grad[size // 2] = np.nan
    assert np.isnan(adamw.sum_of_squares(grad))
