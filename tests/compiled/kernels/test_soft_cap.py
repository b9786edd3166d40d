import numpy as np
import pytest
from helpers.kernel_twins import SIZES, assert_within, normals, poisoned, wide

from benchmarks.cases.rounding import TINY, U, gamma
from tinygpt_np import ops
from tinygpt_np.compiled.kernels import soft_cap

_, normal = normals(34)


@pytest.mark.parametrize("size", SIZES)
def test_results_are_the_truth_but_for_rounding(size: int) -> None:
    x, dy, cap = np.float32(3) * normal(size), normal(size), 1.75
    x[::3] *= np.float32(1e-3)
    x[-1] = 1e4 if size % 2 else -1e4
    truth, _ = ops.soft_cap.forward(x.astype(np.float64), cap)
    for y in (poisoned(size), x.copy()):
        soft_cap.forward_values(x if np.isnan(y).all() else y, cap, y)
        # The quotient rounds once, which moves tanh by no more; then tanh, to 3 ulp or 6 U, and
        # the product.
        assert_within(y, truth, gamma(8) * np.abs(truth) + TINY)
    y64, dy64 = wide(y, dy)
    tanh = y64 / cap
    # The quotient rounds once, which moves tanh² by twice that, and so does tanh²; then a
    # difference and a product.
    bound = np.abs(dy64) * (3.01 * U * tanh**2 + gamma(2) * (1 - tanh**2)) + TINY
    for dx in (poisoned(size), dy.copy()):
        soft_cap.backward_values(dy if np.isnan(dx).all() else dx, y, cap, dx)
        assert_within(dx, dy64 * (1 - tanh**2), bound)


def test_a_value_has_the_same_bits_wherever_the_array_begins_and_nan_stays_nan() -> None:
    x, y = normal(100), poisoned(100)
    x[40] = np.nan
    soft_cap.forward_values(x, 3.0, y)
    assert np.flatnonzero(np.isnan(y)).tolist() == [40]
    for start in (1, 7, 38):
        part = poisoned(53)
        soft_cap.forward_values(x[start : start + 53], 3.0, part)
        np.testing.assert_array_equal(part, y[start : start + 53])
