import numpy as np
import pytest
from helpers.kernel_twins import SIZES, assert_elementwise

from tinygpt_np import ops
from tinygpt_np.compiled.kernels import relu


@pytest.mark.parametrize("size", SIZES)
def test_results_are_exact(size: int) -> None:
    assert_elementwise(relu, ops.relu, size, lambda x: (0, 0))


def test_the_derivative_at_zero_is_zero() -> None:
    x = np.array([0, -0.0, 1e-45, -1e-45], np.float32)
    dx = relu.backward(np.full(4, 0.7, np.float32), relu.forward(x)[1])
    assert dx.tolist() == [0, 0, np.float32(0.7), 0]
