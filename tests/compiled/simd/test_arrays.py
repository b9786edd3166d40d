"""Conversions of arguments that test_twins.py does not test."""

from typing import Any

import numpy as np
import pytest

from tinygpt_np.compiled.simd.arrays import floats, integers


@pytest.mark.parametrize(("convert", "dtype"), [(floats, np.float32), (integers, np.int64)])
def test_only_an_array_that_kernels_would_misread_is_copied(convert: Any, dtype: Any) -> None:
    array = np.arange(24, dtype=dtype)
    assert convert(array, "x") is array
    unaligned = np.zeros(array.nbytes + 1, np.uint8)[1:].view(dtype)
    unaligned[...] = array
    found = convert(unaligned, "x")
    assert found.flags.aligned
    np.testing.assert_array_equal(found, array)


def test_booleans_are_no_integers() -> None:
    with pytest.raises(TypeError, match=r"^ids must be an array of integers, not bool$"):
        integers(np.zeros(3, bool), "ids")
    for dtype in (np.int8, np.uint64):
        found = integers(np.array([0, 1, 127], dtype), "ids")
        assert (found.dtype, found.tolist()) == (np.int64, [0, 1, 127])
