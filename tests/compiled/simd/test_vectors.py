import operator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from helpers.kernel_chains import fma as rounded_once
from helpers.kernel_twins import normals, poisoned
from numba import njit

from tinygpt_np.compiled.simd import vectors
from tinygpt_np.compiled.simd.vectors import (
    LANES,
    copy_vector,
    load,
    load_vector,
    store,
    store_vector,
    tile_of_host,
    transpose_block,
)

rng, normal = normals(22)
NUMBER = np.float32(12345)


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
    # A feature that is not listed counts as absent.
    assert tile_of_host(machine, dict.fromkeys(features, True)) == tile


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
    found = rounded_once(*(np.array([x], np.float32) for x in (a, b, c)))[0]
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


# Values that tell one operation from another: of both signs, a NaN, infinities, and zeros.
A, B, C = (normal(LANES) for _ in range(3))
A[:5], B[:5] = [np.nan, 1, np.inf, -np.inf, 0], [1, np.nan, 2, np.inf, -0.0]
NUMBER_B = np.float32(-1.75)
all_lanes, at_least, at_most = vectors.all_lanes, vectors.at_least, vectors.at_most
first_lanes, fma, largest_of = vectors.first_lanes, vectors.fma, vectors.largest_of
sum_of = vectors.sum_of


def rounded_once_of_two(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return rounded_once(a, b, a)


@njit
def fma_of_two(a: Any, b: Any) -> Any:
    return fma(a, b, a)


operators: Any = operator
# Each with what NumPy says of it.
OPERATIONS: dict[str, tuple[Any, Any]] = {
    "+": (operators.add, np.add),
    "-": (operators.sub, np.subtract),
    "*": (operators.mul, np.multiply),
    "/": (operators.truediv, np.divide),
    "at_least": (vectors.at_least, np.maximum),
    "at_most": (vectors.at_most, np.minimum),
    "fma": (fma_of_two, rounded_once_of_two),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_done_lane_by_lane_and_with_numbers(name: str) -> None:
    ours, theirs = OPERATIONS[name]

    @njit
    def operation(a: Any, b: Any) -> Any:
        return ours(a, b)

    @njit
    def call(a: Any, b: Any, number: Any, found: Any) -> None:
        x, y, width = load_vector(a), load_vector(b), 4 * LANES
        store_vector(found, operation(x, y))
        store_vector(found + width, operation(x, number))
        store_vector(found + 2 * width, operation(number, y))

    found = poisoned(3, LANES)
    call(A.ctypes.data, B.ctypes.data, NUMBER_B, found.ctypes.data)
    same = np.full(LANES, NUMBER_B)
    with np.errstate(all="ignore"):
        expected = [theirs(A, B), theirs(A, same), theirs(same, B)]
    if name.startswith("at_"):  # A bound that is NaN bounds nothing.
        expected = [
            np.where(np.isnan(b), a, e)
            for a, b, e in zip((A, A, same), (B, same, B), expected, strict=True)
        ]
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


def test_numbers_alone_stay_numbers() -> None:
    @njit
    def call(a: Any, b: Any, c: Any) -> Any:
        return fma(a, b, c), at_least(a, b), at_most(a, b)

    assert call(*(np.float32(x) for x in (2, 3, 4))) == (10, 3, 2)


def test_a_vector_is_stored_whole_and_nothing_beside_it() -> None:
    @njit
    def call(source: Any, number: Any, target: Any) -> None:
        store_vector(target, load_vector(source))
        store_vector(target + 4 * LANES, all_lanes(number))
        store_vector(target + 8 * LANES, number)

    source, target = numbered(LANES + 4), poisoned(3 * LANES + 2)
    call(source[3:].ctypes.data, NUMBER, target[1:].ctypes.data)
    np.testing.assert_array_equal(target[1 : LANES + 1], source[3 : 3 + LANES])
    np.testing.assert_array_equal(target[LANES + 1 : -1], np.full(2 * LANES, NUMBER))
    assert np.isnan(target[[0, -1]]).all()


def halved(values: Any, operation: Any) -> Any:
    while len(values) > 1:
        values = operation(*np.split(values, 2))
    return values[0]


def test_lanes_are_brought_together_by_halves() -> None:
    @njit
    def call(a: Any) -> Any:
        return sum_of(load_vector(a)), largest_of(load_vector(a))

    for place in range(LANES):
        # Sizes differ so much that another order of the sum gives other bits.
        values = normal(LANES) * np.float32(10) ** rng.integers(-4, 5, LANES).astype(np.float32)
        values[place] = 1e6
        assert call(values.ctypes.data) == (halved(values, np.add), np.float32(1e6))
        values[place] = np.nan
        assert np.isnan(call(values.ctypes.data)[0])
    assert call(np.full(LANES, -np.inf, np.float32).ctypes.data)[1] == -np.inf


@pytest.mark.parametrize("count", [-3, 0, 1, LANES // 2, LANES - 1, LANES, LANES + 5])
def test_the_first_lanes_stay_and_the_others_are_the_rest(count: int) -> None:
    @njit
    def call(a: Any, b: Any, count: Any, found: Any) -> None:
        store_vector(found, first_lanes(load_vector(a), count, load_vector(b)))

    found = poisoned(LANES)
    call(A.ctypes.data, C.ctypes.data, count, found.ctypes.data)
    expected: Any = np.where(np.arange(LANES) < count, A, C)
    np.testing.assert_array_equal(found, expected)
