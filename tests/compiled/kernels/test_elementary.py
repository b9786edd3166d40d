"""Each function is run in a loop like those of the kernels, with their permission to regroup."""

import math
from typing import Any

import numpy as np
import pytest
from helpers.kernel_twins import poisoned

from tinygpt_np.compiled.cache import kernel, strict
from tinygpt_np.compiled.kernels import elementary
from tinygpt_np.compiled.simd.vectors import LANES, load_vector, store_vector

kernel_exp, kernel_maximum = elementary.exp, elementary.maximum


def loop_over(function: Any) -> Any:
    @kernel
    def loop(x: Any, y: Any) -> None:
        for i in range(x.size):
            y[i] = function(x[i])

    return loop


exps, tanhs, erfs = map(loop_over, (kernel_exp, elementary.tanh, elementary.erf))


@kernel
def largest(x: Any) -> Any:
    found = x[0]
    for i in range(x.size):
        found = kernel_maximum(found, x[i])
    return found


def run(loop: Any, x: Any) -> np.ndarray:
    x = np.asarray(x, np.float32)
    y = poisoned(x.size)
    loop(x, y)
    return y


def erf64(x: np.ndarray) -> np.ndarray:
    return np.array([math.erf(value) for value in x.tolist()])


def largest_ulps(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the largest error, in units of the distance between float32 near the truth."""
    with np.errstate(under="ignore"):
        ulp = np.spacing(np.abs(truth).astype(np.float32)).astype(np.float64)
    error = np.abs(found - truth) / ulp
    return float(error.max()) if np.isfinite(error).all() else math.inf


# Magnitudes from the smallest normal number to 1, both signs: relative error where x is tiny.
TINY = np.geomspace(1.2e-38, 1, 40_000, dtype=np.float64)
SWEEP = np.concatenate([np.linspace(-10, 10, 200_001), TINY, -TINY]).astype(np.float32)


def test_exp_is_within_1_1_ulp_wherever_it_is_not_given_as_zero() -> None:
    x = np.concatenate([np.linspace(-86.98, 88.72, 300_000), SWEEP]).astype(np.float32)
    assert largest_ulps(run(exps, x), np.exp(x.astype(np.float64))) <= 1.1


def test_exp_near_underflow_is_off_by_no_more_than_1e_minus_37() -> None:
    x = np.linspace(-110, -86, 100_000, dtype=np.float32)
    assert np.abs(run(exps, x) - np.exp(x.astype(np.float64))).max() <= 1e-37


def test_tanh_is_within_3_ulp() -> None:
    assert largest_ulps(run(tanhs, SWEEP), np.tanh(SWEEP.astype(np.float64))) <= 3


def test_erf_is_within_2_ulp() -> None:
    assert largest_ulps(run(erfs, SWEEP), erf64(SWEEP)) <= 2


def test_exp_of_the_ends_of_the_line() -> None:
    found = run(exps, [-np.inf, -1e4, -0.0, 0, 88.7, 89, 1e4, np.inf])
    finite = np.exp(np.float64(np.float32(88.7)))
    np.testing.assert_allclose(found, [0, 0, 1, 1, finite, np.inf, np.inf, np.inf], rtol=1e-6)


def test_exp_of_a_vector_is_that_of_its_numbers() -> None:
    @strict
    def by_vectors(x: Any, y: Any) -> None:
        for place in range(0, 4 * x.size, 4 * LANES):
            store_vector(y.ctypes.data + place, kernel_exp(load_vector(x.ctypes.data + place)))

    @strict
    def by_numbers(x: Any, y: Any) -> None:
        for i in range(x.size):
            y[i] = kernel_exp(x[i])

    x = np.linspace(-100, 100, 1000 * LANES, dtype=np.float32)
    x[:4] = [np.nan, np.inf, -np.inf, -0.0]
    np.testing.assert_array_equal(run(by_vectors, x), run(by_numbers, x))


@pytest.mark.parametrize("loop", [tanhs, erfs])
def test_tanh_and_erf_of_the_ends_of_the_line(loop: Any) -> None:
    found = run(loop, [-np.inf, -1e4, -0.0, 0, 1e4, np.inf])
    assert found.tolist() == [-1, -1, 0, 0, 1, 1]
    assert np.signbit(found).tolist() == [True, True, True, False, False, False]


@pytest.mark.parametrize("loop", [exps, tanhs, erfs])
@pytest.mark.parametrize("size", [1, 7, 16, 33])
def test_nan_stays_nan_at_any_place_of_a_vector(loop: Any, size: int) -> None:
    x = np.ones(size)
    x[size // 2] = np.nan
    assert np.isnan(run(loop, x)).tolist() == np.isnan(x).tolist()


@pytest.mark.parametrize("size", [1, 7, 16, 33, 100])
@pytest.mark.parametrize("largest_value", [-1, np.nan])
def test_maximum_of_a_row_is_the_largest_or_nan_at_any_place(
    size: int, largest_value: float
) -> None:
    for place in range(size):
        x = np.linspace(-3, -2, size).astype(np.float32)
        x[place] = largest_value
        np.testing.assert_equal(largest(x), np.float32(largest_value))
