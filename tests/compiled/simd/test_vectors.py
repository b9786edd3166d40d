import operator
from typing import Any

import numpy as np
import pytest
from helpers.kernel_chains import fma as rounded_once
from helpers.kernel_twins import normals, poisoned
from numba import njit

from tinygpt_np.compiled.simd.vectors import (
    LANES,
    at_least,
    at_most,
    copysign,
    even_lanes,
    first_lanes,
    fma,
    largest_of,
    load_lanes,
    load_vector,
    lower_pairs,
    odd_lanes,
    store_lanes,
    store_vector,
    sum_of,
    tile_of_host,
    upper_pairs,
    where_positive,
)

rng, normal = normals(22)


@pytest.mark.parametrize(
    ("machine", "features", "tile"),
    [
        ("x86_64-unknown-linux-gnu", ("avx512f", "avx2", "fma"), (16, 6, 4, True)),
        ("x86_64-pc-windows-msvc", ("avx2", "fma"), (8, 6, 2, True)),
        ("x86_64-unknown-linux-gnu", ("avx2",), (4, 4, 1, False)),
        ("x86_64-unknown-linux-gnu", ("fma",), (4, 4, 1, False)),
        ("aarch64-unknown-linux-gnu", ("neon",), (4, 6, 4, True)),
        ("arm64-apple-darwin24.1.0", (), (4, 6, 4, True)),
    ],
)
def test_the_tile_is_that_of_the_cpu(
    machine: str, features: tuple[str, ...], tile: tuple[int, int, int, bool]
) -> None:
    for lacking in ((), ("avx512f", "avx2", "fma", "neon")):
        given = dict.fromkeys(lacking, False) | dict.fromkeys(features, True)
        assert tile_of_host(machine, given) == tile


# Values that tell one operation from another: of both signs, a NaN, infinities, and zeros.
A, B, C = (normal(LANES) for _ in range(3))
A[:5], B[:5] = [np.nan, 1, np.inf, -np.inf, 0], [1, np.nan, 2, np.inf, -0.0]
NUMBER_B = np.float32(-1.75)


def rounded_once_of_two(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return rounded_once(a, b, a)


@njit
def fma_of_two(a: Any, b: Any) -> Any:
    return fma(a, b, a)


def value_where_positive(x: np.ndarray, value: np.ndarray) -> np.ndarray:
    return np.where(x <= 0, 0, value)


operators: Any = operator
# Each with what NumPy says of it.
OPERATIONS: dict[str, tuple[Any, Any]] = {
    "+": (operators.add, np.add),
    "-": (operators.sub, np.subtract),
    "*": (operators.mul, np.multiply),
    "/": (operators.truediv, np.divide),
    "at_least": (at_least, np.maximum),
    "at_most": (at_most, np.minimum),
    "fma": (fma_of_two, rounded_once_of_two),
    "copysign": (copysign, np.copysign),
    "where_positive": (where_positive, value_where_positive),
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


@pytest.mark.parametrize("count", [-3, 0, 1, LANES // 2, LANES - 1, LANES, LANES + 5])
def test_some_lanes_are_loaded_and_stored_and_no_other_memory_is_touched(count: int) -> None:
    @njit
    def call(a: Any, count: Any, loaded: Any, stored: Any) -> None:
        store_vector(loaded, load_lanes(a, count))
        store_lanes(stored, load_vector(a), count)

    loaded, stored = poisoned(LANES), C.copy()
    call(A.ctypes.data, count, loaded.ctypes.data, stored.ctypes.data)
    few = np.arange(LANES) < count
    np.testing.assert_array_equal(loaded, np.where(few, A, 0))
    np.testing.assert_array_equal(stored, np.where(few, A, C))


def test_pairs_are_taken_apart_and_joined() -> None:
    @njit
    def call(a: Any, found: Any) -> None:
        width = 4 * LANES
        x, y = load_vector(a), load_vector(a + width)
        even, odd = even_lanes(x, y), odd_lanes(x, y)
        store_vector(found, even)
        store_vector(found + width, odd)
        store_vector(found + 2 * width, lower_pairs(even, odd))
        store_vector(found + 3 * width, upper_pairs(even, odd))

    values, found = normal(2 * LANES), poisoned(4, LANES)
    call(values.ctypes.data, found.ctypes.data)
    np.testing.assert_array_equal(found[:2], [values[::2], values[1::2]])
    np.testing.assert_array_equal(found[2:].reshape(-1), values)
