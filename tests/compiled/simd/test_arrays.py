from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinygpt_np.compiled.simd.arrays import floats, integers


def unaligned(array: np.ndarray) -> np.ndarray:
    odd = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    odd[...] = array
    return odd


def read_only(array: np.ndarray) -> np.ndarray:
    frozen = array.copy()
    frozen.flags.writeable = False
    return frozen


def strided(array: np.ndarray) -> np.ndarray:
    return np.repeat(array, 2, axis=1)[:, ::2]


@pytest.mark.parametrize(("convert", "dtype"), [(floats, np.float32), (integers, np.int64)])
@pytest.mark.parametrize("layout", [np.asfortranarray, strided, unaligned, read_only])
def test_only_an_array_that_kernels_would_misread_is_copied(
    convert: Any, dtype: Any, layout: Callable[[Any], Any]
) -> None:
    array = np.arange(24, dtype=dtype).reshape(4, 6)
    assert convert(array, "x") is array
    given = layout(array)
    found = convert(given, "x")
    assert found.flags.c_contiguous
    assert found.flags.writeable
    assert found.flags.aligned
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array)
    assert not np.shares_memory(found, given)


@pytest.mark.parametrize(
    ("convert", "dtype", "expected"),
    [(floats, np.float64, "float32"), (floats, np.int32, "float32"), (integers, bool, "integers")],
)
def test_another_dtype_is_refused(convert: Any, dtype: Any, expected: str) -> None:
    wanted = f"^gelu.forward: x must be an array of {expected}, not {np.dtype(dtype)}$"
    with pytest.raises(TypeError, match=wanted):
        convert(np.zeros(3, dtype), "gelu.forward: x")


def test_any_integers_become_int64() -> None:
    for dtype in (np.int8, np.uint64):
        found = integers(np.array([0, 1, 127], dtype), "ids")
        assert (found.dtype, found.tolist()) == (np.int64, [0, 1, 127])
