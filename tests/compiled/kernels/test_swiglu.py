import numpy as np
import pytest
from helpers.kernel_twins import SIZES, normals, poisoned

from tinygpt_np.compiled.kernels import silu, swiglu

_, normal = normals(33)


@pytest.mark.parametrize("size", SIZES[:-1])
def test_results_are_the_bits_of_silu_and_of_products(size: int) -> None:
    rows = 5
    x, dy = np.float32(3) * normal(rows, 2 * size), normal(rows, size)
    up = x[:, size:]
    activated, saved = silu.forward(x[:, :size])
    dgate = silu.backward(dy * up, saved)
    y, dx = poisoned(rows, size), poisoned(rows, 2 * size)
    swiglu.forward_rows(x, y)
    np.testing.assert_array_equal(y, activated * up)
    swiglu.backward_rows(dy, x, dx)
    np.testing.assert_array_equal(dx, np.hstack([dgate, dy * activated]))
    swiglu.backward_rows(dy, x, x)
    np.testing.assert_array_equal(x, dx)


def test_columns_of_a_row_may_be_computed_alone() -> None:
    x, size = normal(70), 35
    y, part = poisoned(1, size), poisoned(21)
    swiglu.forward_rows(x[None], y)
    swiglu.forward_values(x[9:30], x[size + 9 : size + 30], part)
    np.testing.assert_array_equal(part, y[0, 9:30])
