"""Arrays begin with a cache line, or as a layout says, and writes around them are noticed."""

import ctypes

import numpy as np
import pytest

from benchmarks.worker.memory import GUARD, LINE, MISALIGNED, STRIDED, TRAINING, Guarded, Layout

LAYOUTS = (TRAINING, MISALIGNED, STRIDED)
FLOAT = np.dtype(np.float32)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 3, 5)])
def test_an_array_is_laid_out_as_it_should_be(layout: Layout, shape: tuple[int, ...]) -> None:
    for dtype in (FLOAT, np.dtype(np.int64)):
        array = Guarded(shape, dtype, layout).array
        assert (array.shape, array.dtype) == (shape, dtype)
        assert array.ctypes.data % LINE == (dtype.itemsize if layout is MISALIGNED else 0)
        assert array.flags.aligned
        assert array.flags.c_contiguous == (layout is not STRIDED)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(7,), (5, 7)])
def test_every_byte_around_an_array_is_guarded(layout: Layout, shape: tuple[int, ...]) -> None:
    found = Guarded(shape, FLOAT, layout)
    found.array[...] = 1
    assert found.damage("x") is None
    start = found.array.ctypes.data
    inside = {
        start + sum(i * stride for i, stride in zip(index, found.array.strides, strict=True)) + byte
        for index in np.ndindex(shape)
        for byte in range(4)
    }
    last = max(inside)
    for address in {start - GUARD, last + GUARD, *range(start - 9, last + 9)}:
        if address not in inside:
            byte = ctypes.c_uint8.from_address(address)
            byte.value ^= 1
            assert found.damage("x"), address - start
            byte.value ^= 1


def test_the_place_of_the_damage_is_told() -> None:
    found = Guarded((5, 7), FLOAT)
    for offset, count, said in (
        (140, 256, "memory behind x was written to: 256 bytes, the nearest 0 bytes away"),
        (-40, 8, "memory before x was written to: 8 bytes, the nearest 32 bytes away"),
    ):
        ctypes.memset(found.array.ctypes.data + offset, 0, count)
        assert found.damage("x") == said
