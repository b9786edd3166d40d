from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinygpt_np.compiled.simd.arrays import floats, integers

Converter = Callable[[np.ndarray, str], np.ndarray]
both = pytest.mark.parametrize(
    ("convert", "array"),
    [
        (floats, np.arange(24, dtype=np.float32).reshape(4, 6)),
        (integers, np.arange(24, dtype=np.int64).reshape(4, 6)),
    ],
    ids=["floats", "integers"],
)


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


@both
@pytest.mark.parametrize("layout", [np.asfortranarray, strided, unaligned, read_only])
def test_only_an_array_that_lies_badly_is_copied(
    convert: Converter, array: np.ndarray, layout: Callable[[Any], Any]
) -> None:
    assert convert(array, "x") is array
    given = layout(array)
    found = convert(given, "x")
    assert found.flags.c_contiguous
    assert found.flags.writeable
    assert found.flags.aligned
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    found[...] = 99
    np.testing.assert_array_equal(given, array)


@pytest.mark.parametrize("dtype", [np.float64, np.int32])
def test_floats_refuses_all_but_float32(dtype: Any) -> None:
    wanted = f"^gelu.forward: x must be an array of float32, not {np.dtype(dtype)}$"
    with pytest.raises(TypeError, match=wanted):
        floats(np.zeros(3, dtype), "gelu.forward: x")


@pytest.mark.parametrize("dtype", [np.float32, np.bool_])
def test_integers_refuses_what_is_none(dtype: Any) -> None:
    wanted = f"^embedding.forward: ids must be an array of integers, not {np.dtype(dtype)}$"
    with pytest.raises(TypeError, match=wanted):
        integers(np.zeros(3, dtype), "embedding.forward: ids")


@pytest.mark.parametrize("dtype", [np.int8, np.uint64])
def test_any_integers_become_int64(dtype: Any) -> None:
    given: np.ndarray = np.array([0, 1, 127], dtype)
    found = integers(given, "ids")
    assert found.dtype == np.int64
    assert found.tolist() == [0, 1, 127]
    assert not np.shares_memory(found, given)
