from typing import Any

import numpy as np
import pytest
from helpers.kernel_twins import SIZES, normals, poisoned

from tinygpt_np.compiled.kernels import elementwise, gelu, relu, relu_squared, silu

rng, normal = normals(31)
X, DY = 3 * normal(70001), normal(70001)


@pytest.mark.parametrize("twin", [gelu, relu, relu_squared, silu])
def test_a_value_has_the_same_bits_wherever_the_array_begins_and_ends(twin: Any) -> None:
    y, dx = poisoned(X.size), poisoned(X.size)
    twin.forward_values(X, y)
    twin.backward_values(DY, X, dx)
    for size in SIZES:
        start = int(rng.integers(X.size - size + 1))
        part = slice(start, start + size)
        found = poisoned(size)
        twin.forward_values(X[part], found)
        np.testing.assert_array_equal(found, y[part])
        twin.backward_values(DY[part], X[part], found)
        np.testing.assert_array_equal(found, dx[part])


@pytest.mark.parametrize("size", SIZES)
def test_a_copy_and_zeros_are_written_to_all_numbers(size: int) -> None:
    y = poisoned(size)
    elementwise.copy(X[:size], y)
    np.testing.assert_array_equal(y, X[:size])
    elementwise.clear(y)
    assert not y.any()


@pytest.mark.parametrize("twin", [gelu, relu, relu_squared, silu])
def test_nan_stays_nan_and_stays_where_it_is(twin: Any) -> None:
    for place in (0, 5, 31, 33):
        x, dy, y = X[:34].copy(), DY[:34].copy(), poisoned(34)
        x[place] = np.nan
        twin.forward_values(x, y)
        assert np.flatnonzero(np.isnan(y)).tolist() == [place]
        x[place], dy[place] = 1, np.nan
        twin.backward_values(dy, x, dy)
        assert np.flatnonzero(np.isnan(dy)).tolist() == [place]
