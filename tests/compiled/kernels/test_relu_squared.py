import numpy as np
import pytest
from helpers.kernel_twins import SIZES, assert_elementwise

from benchmarks.cases.rounding import TINY, U
from tinygpt_np import ops
from tinygpt_np.compiled.kernels import relu_squared


def bounds(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds on the errors of the output and of the derivative: one rounding each."""
    passed = np.maximum(x, 0)
    return U * passed * passed + TINY, 2 * U * passed


@pytest.mark.parametrize("size", SIZES)
def test_results_are_the_truth_but_for_rounding(size: int) -> None:
    assert_elementwise(relu_squared, ops.relu_squared, size, bounds)
