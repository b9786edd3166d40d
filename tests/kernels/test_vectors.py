from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from kernels.chains import chain, fma
from kernels.twins import poisoned
from numba import njit

from tinygpt_np.kernels.vectors import (
    FUSED,
    LANES,
    ROWS,
    VECTORS,
    copy_vector,
    load,
    make_tile,
    store,
    tile_of_host,
    transpose_block,
)

rng = np.random.default_rng(22)
NUMBER = np.float32(12345)


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def numbered(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize(
    ("machine", "features", "tile"),
    [
        ("x86_64-unknown-linux-gnu", ("avx512f", "avx2", "fma"), (16, 6, 4, True)),
        ("x86_64-pc-windows-msvc", ("avx2", "fma"), (8, 6, 2, True)),
        ("x86_64-unknown-linux-gnu", ("avx2",), (4, 4, 1, False)),
        ("x86_64-unknown-linux-gnu", ("fma",), (4, 4, 1, False)),
        ("x86_64-unknown-linux-gnu", (), (4, 4, 1, False)),
        ("aarch64-unknown-linux-gnu", ("neon",), (4, 6, 4, True)),
        ("arm64-apple-darwin24.1.0", (), (4, 6, 4, True)),
        ("riscv64-unknown-linux-gnu", (), (4, 4, 1, False)),
    ],
)
def test_the_tile_is_that_of_the_cpu(
    machine: str, features: tuple[str, ...], tile: tuple[int, int, int, bool]
) -> None:
    lacking = dict.fromkeys(("avx512f", "avx2", "fma", "neon"), False)
    assert tile_of_host(machine, lacking | dict.fromkeys(features, True)) == tile
    # What a CPU is not said to have it has not.
    assert tile_of_host(machine, dict.fromkeys(features, True)) == tile


def calling(tile: Any) -> Callable[..., None]:
    @njit
    def call(height: Any, addresses: Any, strides: Any, depth: Any) -> None:
        a, b, start, c = addresses
        a_stride, b_stride, start_stride, c_stride = strides
        tile(height, a, a_stride, b, b_stride, start, start_stride, c, c_stride, depth)

    return call


# (vectors, rows, lanes, fused): this host's, and those of others.
TILES = [(VECTORS, ROWS, LANES, FUSED), (2, 6, 8, FUSED), (1, 4, 4, False), (3, 2, 4, FUSED)]


@pytest.mark.parametrize("kind", TILES, ids=str)
def test_a_tile_is_the_product_at_every_height_and_depth(
    kind: tuple[int, int, int, bool],
) -> None:
    count, rows, lanes, fused = kind
    call, width = calling(make_tile(*kind)), count * lanes
    for height in range(1, rows + 1):
        for depth in (1, 2, 3, 4, 5, 8, 39):
            # Each in a larger matrix of another width; C in one of numbers that must stay.
            a, b = normal(height, depth + 3), normal(depth, width + 5)
            start, c = normal(height, width + 7), np.full((rows + 1, width + 9), NUMBER)
            matrices = (a[:, 2:], b[:, 1:], start[:, 4:], c[:, 6:])
            addresses = tuple(m.ctypes.data for m in matrices)
            call(height, addresses, tuple(m.strides[0] for m in matrices), depth)
            expected = np.full_like(c, NUMBER)
            factors = a[:, 2 : 2 + depth], b[:, 1 : 1 + width], start[:, 4 : 4 + width]
            expected[:height, 6 : 6 + width] = chain(*factors, fused)
            np.testing.assert_array_equal(c, expected)


def test_a_tile_may_start_from_one_row_and_from_itself() -> None:
    call, width = calling(make_tile(1, ROWS)), LANES
    a, b, bias, c = normal(ROWS, 7), normal(7, width), normal(1, width), poisoned(ROWS, width)
    strides = a.strides[0], b.strides[0]
    addresses = a.ctypes.data, b.ctypes.data
    call(ROWS, (*addresses, bias.ctypes.data, c.ctypes.data), (*strides, 0, c.strides[0]), 7)
    once = chain(a, b, bias)
    np.testing.assert_array_equal(c, once)
    here = c.ctypes.data
    call(ROWS, (*addresses, here, here), (*strides, c.strides[0], c.strides[0]), 7)
    np.testing.assert_array_equal(c, chain(a, b, once))


@pytest.mark.parametrize(
    ("a", "b", "c"),
    [
        # (1 + ε)² - 1 - 2ε is ε², of which a product rounded by itself keeps nothing.
        (1 + 2.0**-12, 1 + 2.0**-12, -1 - 2.0**-11),
        # Beside 1 lies half a unit of its last place, and a little that decides which way to go.
        (2.0**-24, 1 + 2.0**-23, 1),
        (-(2.0**-25), 1 + 2.0**-23, 1),
        # The little is lost in float64 beside 1, and decides nonetheless.
        (2.0**-24, 1.0, 1 + 2.0**-23),
        (2.0**-12 + 2.0**-35, 2.0**-12 + 2.0**-35, 1),
    ],
)
def test_the_reference_rounds_once(a: float, b: float, c: float) -> None:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    found = fma(*(np.array([x], np.float32) for x in (a, b, c)))[0]
    others = (np.nextafter(found, np.float32(side)) for side in (-np.inf, np.inf))
    nearest = min(abs(Fraction(float(other)) - exact) for other in others)
    error = abs(Fraction(float(found)) - exact)
    # Just between two it is the even one.
    assert error < nearest or (error == nearest and found.view(np.int32) % 2 == 0)


@njit
def copied(source: Any, target: Any) -> None:
    copy_vector(source, target)


@njit
def transposed(source: Any, source_stride: Any, target: Any, target_stride: Any) -> None:
    transpose_block(source, source_stride, target, target_stride)


@njit
def moved(source: Any, target: Any) -> float:
    store(target, load(source) + np.float32(1))
    return load(target)


def test_copy_vector_copies_as_many_numbers_as_there_are_lanes() -> None:
    source, target = numbered(LANES + 4), poisoned(LANES + 2)
    copied(source[3:].ctypes.data, target[1:].ctypes.data)
    np.testing.assert_array_equal(target[1:-1], source[3 : 3 + LANES])
    assert np.isnan(target[[0, -1]]).all()


def test_transpose_block_transposes_one_and_touches_nothing_else() -> None:
    source, target = numbered(LANES, LANES + 3), np.full((LANES + 2, LANES + 5), NUMBER)
    transposed(
        source[:, 2:].ctypes.data, source.strides[0], target[1:, 3:].ctypes.data, target.strides[0]
    )
    expected = np.full_like(target, NUMBER)
    expected[1:-1, 3:-2] = source[:, 2:-1].T
    np.testing.assert_array_equal(target, expected)


def test_a_block_may_be_transposed_in_place() -> None:
    block = numbered(LANES, LANES)
    transposed(block.ctypes.data, block.strides[0], block.ctypes.data, block.strides[0])
    np.testing.assert_array_equal(block, numbered(LANES, LANES).T)


def test_load_and_store_reach_the_number_at_an_address_alone() -> None:
    source, target = numbered(3), poisoned(3)
    assert moved(source[1:].ctypes.data, target[1:].ctypes.data) == 2
    np.testing.assert_array_equal(target, np.array([np.nan, 2, np.nan], np.float32))
    assert source.tolist() == [0, 1, 2]
