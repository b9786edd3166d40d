from types import ModuleType

import numpy as np
import pytest
from helpers.kernel_bounds import EXP, TINY, U, assert_within, gamma
from helpers.kernel_twins import normals, poisoned

from tinygpt_np import ops
from tinygpt_np.compiled.kernels import gelu, gelu_exact
from tinygpt_np.compiled.simd.vectors import LANES

_, normal = normals(13)
sizes = pytest.mark.parametrize("size", [1, 2, 7, 15, 16, 17, 127, 1000, 70001])
# The truth itself, in float64, loses this much of x where tanh is close to -1.
FLOAT64 = 1e-15


def values(size: int) -> np.ndarray:
    x = normal(size) * np.float32(3)
    x[::3] *= np.float32(1e-3)
    x[-1] = 1e4 if size % 2 else -1e4
    return x


def sigmoid_and_error(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gate, and a bound on the relative error of the one computed."""
    z = -2 * ops.gelu.SQRT_2_OVER_PI * (x + ops.gelu.CUBIC * x**3)
    with np.errstate(over="ignore"):
        gate = 1 / (1 + np.exp(z))
    # z: two constants, three products, a sum of two of one sign. Its error moves exp(z) by as
    # much, and 1/(1 + exp(z)) by 1 - gate of it; then exp, a sum, a quotient.
    return gate, (1 - gate) * (gamma(6) * np.abs(z) + EXP * U) * 1.01 + gamma(3)


@sizes
def test_forward_is_the_truth_but_for_rounding(size: int) -> None:
    x = values(size)
    truth, _ = ops.gelu.forward(x.astype(np.float64))
    gate, error = sigmoid_and_error(x.astype(np.float64))
    y = poisoned(size)
    gelu.forward_values(x, y)
    assert_within(y, truth, np.abs(x) * (gate * error + FLOAT64 + TINY))


@sizes
@pytest.mark.parametrize("in_place", [False, True])
def test_backward_is_the_truth_but_for_rounding(size: int, in_place: bool) -> None:
    x, dy = values(size), normal(size)
    x64, dy64 = x.astype(np.float64), dy.astype(np.float64)
    truth = ops.gelu.backward(dy64, ops.gelu.forward(x64)[1])
    gate, error = sigmoid_and_error(x64)
    reach = 2 * ops.gelu.SQRT_2_OVER_PI * (np.abs(x64) + 3 * ops.gelu.CUBIC * np.abs(x64) ** 3)
    # gate (1 - gate) reach: gate and reach by their relative errors, 1 - gate by what gate moves
    # and a rounding; reach has a constant, products and a sum, and three products join the three.
    bend = gate * (1 - gate) * reach
    dbend = bend * (error + gamma(10)) + gate * reach * (gate * error + U * (1 - gate))
    # Where the gate rounds to 1, 1 - gate is 0 and not something below U.
    dbend = dbend + reach * gate * np.minimum(1 - gate, U)
    bound = np.abs(dy64) * (gate * error + dbend + gamma(3) * (gate + bend) + FLOAT64 * (1 + reach))
    dx = dy.copy() if in_place else poisoned(size)
    gelu.backward_values(dx if in_place else dy, x, dx)
    assert_within(dx, truth, bound + TINY)


@pytest.mark.parametrize("module", [gelu, gelu_exact])
def test_far_out_it_is_x_or_nothing(module: ModuleType) -> None:
    x = np.array([-1e4, -30, 0, 30, 1e4], np.float32)
    y, saved = module.forward(x)
    assert y.tolist() == [0, 0, 0, 30, 1e4]
    assert module.backward(np.ones(5, np.float32), saved).tolist() == [0, 0, 0.5, 1, 1]


def test_a_value_has_the_same_bits_at_any_place() -> None:
    x, dy = np.full(3 * LANES - 1, 0.7, np.float32), np.full(3 * LANES - 1, 1.3, np.float32)
    y, saved = gelu.forward(x)
    assert len(set(y.tolist())) == len(set(gelu.backward(dy, saved).tolist())) == 1
