import numpy as np
import pytest
from helpers.kernel_twins import SIZES, assert_elementwise

from benchmarks.cases.rounding import EXP, TINY, U, gamma
from tinygpt_np import ops
from tinygpt_np.compiled.kernels import silu

# The truth itself, in float64, loses this much of x where tanh is close to -1.
FLOAT64 = 1e-15


def bounds(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds on the errors of the output and of the derivative."""
    size = np.abs(x)
    gate = (1 + np.tanh(x / 2)) / 2
    # The error of exp moves 1/(1 + exp) by 1 - gate of it; then a sum and a quotient.
    error = (1 - gate) * EXP * U * 1.01 + gamma(2)
    # y (1 - gate): y by the gate's error and a product; 1 - gate by what the gate moves and a
    # rounding. The derivative is a sum of two terms, and its product by dy rounds again.
    bend = size * gate * (1 - gate)
    dbend = bend * (error + gamma(3)) + size * gate * gate * error
    slope = gate * error + dbend + gamma(2) * (gate + bend) + FLOAT64 * (1 + size)
    return size * (gate * (error + U) + FLOAT64 + TINY), slope


@pytest.mark.parametrize("size", SIZES)
def test_results_are_the_truth_but_for_rounding(size: int) -> None:
    assert_elementwise(silu, ops.silu, size, bounds)
