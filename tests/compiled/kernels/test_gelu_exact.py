import numpy as np
import pytest
from helpers.kernel_twins import SIZES, assert_elementwise

from benchmarks.cases.rounding import EXP, U, gamma
from tinygpt_np import ops
from tinygpt_np.compiled.kernels import gelu_exact


def bounds(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds on the errors of the output and of the derivative."""
    y, (_, _, cdf, *_) = ops.gelu_exact.forward(x)
    bend = np.abs(x) * np.exp(-x * x / 2) / (2 * np.pi) ** 0.5
    # x/√2 rounds twice, which moves Φ by x φ(x) times that; then erf, at most 1, whose error is
    # below 2 ulp or 4 U, and the sum with 1, at most 2, all halved.
    dcdf = gamma(2) * bend * 1.01 + 6 * U / 2
    # x²/2 rounds once (halves are exact), which moves exp by U x²/2; then exp, its constant, two
    # products. Last the sum with Φ and the product by dy.
    slope = dcdf + bend * (U * x * x + gamma(EXP + 3)) + gamma(2) * (cdf + bend)
    # One product more.
    return np.abs(x) * dcdf + 2 * U * np.abs(y), slope


@pytest.mark.parametrize("size", SIZES)
def test_results_are_the_truth_but_for_rounding(size: int) -> None:
    assert_elementwise(gelu_exact, ops.gelu_exact, size, bounds)
