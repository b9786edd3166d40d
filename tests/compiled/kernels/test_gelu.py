import numpy as np
import pytest
from helpers.kernel_twins import SIZES, assert_elementwise

from benchmarks.cases.rounding import EXP, TINY, U, gamma
from tinygpt_np import ops
from tinygpt_np.compiled.kernels import gelu
from tinygpt_np.compiled.simd.vectors import LANES

# The truth itself, in float64, loses this much of x where tanh is close to -1.
FLOAT64 = 1e-15


def bounds(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds on the errors of the output and of the derivative."""
    size, cubic = np.abs(x), ops.gelu.CUBIC
    z = -2 * ops.gelu.SQRT_2_OVER_PI * (x + cubic * x**3)
    with np.errstate(over="ignore"):
        gate = 1 / (1 + np.exp(z))
    # z: two constants, three products, a sum of two of one sign. Its error moves exp(z) by as
    # much, and 1/(1 + exp(z)) by 1 - gate of it; then exp, a sum, a quotient.
    error = (1 - gate) * (gamma(6) * np.abs(z) + EXP * U) * 1.01 + gamma(3)
    reach = 2 * ops.gelu.SQRT_2_OVER_PI * (size + 3 * cubic * size**3)
    # gate (1 - gate) reach: gate and reach by their relative errors, 1 - gate by what gate moves
    # and a rounding; reach has a constant, products and a sum, and three products join the three.
    bend = gate * (1 - gate) * reach
    dbend = bend * (error + gamma(10)) + gate * reach * (gate * error + U * (1 - gate))
    # 1 - gate is 0 and not something below U if the gate rounds to 1.
    dbend = dbend + reach * gate * np.minimum(1 - gate, U)
    slope = gate * error + dbend + gamma(3) * (gate + bend) + FLOAT64 * (1 + reach)
    return size * (gate * error + FLOAT64 + TINY), slope


@pytest.mark.parametrize("size", SIZES)
def test_results_are_the_truth_but_for_rounding(size: int) -> None:
    assert_elementwise(gelu, ops.gelu, size, bounds)


def test_a_value_has_the_same_bits_at_any_place() -> None:
    x, dy = np.full(3 * LANES - 1, 0.7, np.float32), np.full(3 * LANES - 1, 1.3, np.float32)
    y, saved = gelu.forward(x)
    assert len(set(y.tolist())) == len(set(gelu.backward(dy, saved).tolist())) == 1
