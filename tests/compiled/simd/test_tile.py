"""The register tile against the chain of multiply-adds that it promises, bit for bit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.kernel_chains import chain
from helpers.kernel_twins import poisoned
from numba import njit

from tinygpt_np.compiled.simd.tile import make_tile
from tinygpt_np.compiled.simd.vectors import FUSED, LANES, ROWS, VECTORS

rng = np.random.default_rng(22)
NUMBER = np.float32(12345)
# What a tile fetches need not be anywhere.
NOWHERE = 2**60


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def calling(tile: Any) -> Callable[..., None]:
    @njit
    def call(
        height: Any, across: Any, addresses: Any, strides: Any, depth: Any, fetch: Any
    ) -> None:
        a, b, start, c = addresses
        a_stride, b_stride, start_stride, c_stride = strides
        tile(
            height,
            a,
            a_stride,
            across,
            b,
            b_stride,
            start,
            start_stride,
            c,
            c_stride,
            depth,
            fetch,
            64,
        )

    return call


# (vectors, rows, lanes, fused): this host's, and those of others.
TILES = [(VECTORS, ROWS, LANES, FUSED), (2, 6, 8, FUSED), (1, 4, 4, False), (3, 2, 4, FUSED)]


@pytest.mark.parametrize("kind", TILES, ids=str)
@pytest.mark.parametrize("across", [0, 1])
def test_a_tile_is_the_product_at_every_height_and_depth(
    kind: tuple[int, int, int, bool], across: int
) -> None:
    count, rows, lanes, fused = kind
    call, width = calling(make_tile(*kind)), count * lanes
    for height in range(1, rows + 1):
        # As far as it asks for the tile below, and beyond.
        for depth in (1, 2, 3, 4, 5, 8, 4 * rows, 4 * rows + 7):
            # Each in a larger matrix of another width; C in one of numbers that must stay.
            a = normal(depth, height + 3) if across else normal(height, depth + 3)
            b, start = normal(depth, width + 5), normal(height, width + 7)
            c = np.full((rows + 1, width + 9), NUMBER)
            matrices = (a[:, 2:], b[:, 1:], start[:, 4:], c[:, 6:])
            addresses = tuple(m.ctypes.data for m in matrices)
            call(height, across, addresses, tuple(m.strides[0] for m in matrices), depth, NOWHERE)
            expected = np.full_like(c, NUMBER)
            used = a[:, 2 : 2 + height].T if across else a[:, 2 : 2 + depth]
            factors = used, b[:, 1 : 1 + width], start[:, 4 : 4 + width]
            expected[:height, 6 : 6 + width] = chain(*factors, fused)
            np.testing.assert_array_equal(c, expected)


def test_a_tile_may_start_from_one_row_and_from_itself() -> None:
    call, width = calling(make_tile(1, ROWS)), LANES
    a, b, bias, c = normal(ROWS, 7), normal(7, width), normal(1, width), poisoned(ROWS, width)
    strides = a.strides[0], b.strides[0]
    addresses = a.ctypes.data, b.ctypes.data
    call(
        ROWS,
        0,
        (*addresses, bias.ctypes.data, c.ctypes.data),
        (*strides, 0, c.strides[0]),
        7,
        NOWHERE,
    )
    once = chain(a, b, bias)
    np.testing.assert_array_equal(c, once)
    here = c.ctypes.data
    call(ROWS, 0, (*addresses, here, here), (*strides, c.strides[0], c.strides[0]), 7, NOWHERE)
    np.testing.assert_array_equal(c, chain(a, b, once))
