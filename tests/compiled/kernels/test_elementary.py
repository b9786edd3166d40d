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


# Magnitudes from the smallest normal number to 1, both signs: relative error where x is tiny.
TINY = np.geomspace(1.2e-38, 1, 40_000, dtype=np.float64)
SWEEP = np.concatenate([np.linspace(-10, 10, 200_001), TINY, -TINY]).astype(np.float32)


@pytest.mark.parametrize(
    ("loop", "function", "x", "ulps"),
    [
        # Wherever it is not 0.
        (exps, np.exp, np.concatenate([np.linspace(-86.98, 88.72, 300_000), SWEEP]), 1.1),
        (tanhs, np.tanh, SWEEP, 3),
        (erfs, erf64, SWEEP, 2),
    ],
    ids=["exp", "tanh", "erf"],
)
def test_errors_are_within_units_in_the_last_place(
    loop: Any, function: Any, x: np.ndarray, ulps: float
) -> None:
    x = x.astype(np.float32)
    truth = function(x.astype(np.float64))
    with np.errstate(under="ignore"):
        ulp = np.spacing(np.abs(truth).astype(np.float32)).astype(np.float64)
    assert (np.abs(run(loop, x) - truth) <= ulps * ulp).all()


def test_exp_near_underflow_is_off_by_no_more_than_1e_minus_37() -> None:
    x = np.linspace(-110, -86, 100_000, dtype=np.float32)
    assert np.abs(run(exps, x) - np.exp(x.astype(np.float64))).max() <= 1e-37


def test_exp_of_a_vector_is_that_of_its_numbers() -> None:
    @strict
    def by_vectors(x: Any, y: Any) -> None:
        for place in range(0, 4 * x.size, 4 * LANES):
            store_vector(y.ctypes.data + place, kernel_exp(load_vector(x.ctypes.data + place)))

    x = np.linspace(-100, 100, 1000 * LANES, dtype=np.float32)
    x[:4] = [np.nan, np.inf, -np.inf, -0.0]
    np.testing.assert_array_equal(run(by_vectors, x), run(exps, x))


def test_results_at_the_ends_of_the_line() -> None:
    found = run(exps, [-np.inf, -1e4, -0.0, 0, 88.7, 89, 1e4, np.inf])
    finite = np.exp(np.float64(np.float32(88.7)))
    np.testing.assert_allclose(found, [0, 0, 1, 1, finite, np.inf, np.inf, np.inf], rtol=1e-6)
    for loop in (tanhs, erfs):
        found = run(loop, [-np.inf, -1e4, -0.0, 0, 1e4, np.inf])
        assert found.tolist() == [-1, -1, 0, 0, 1, 1]
        assert np.signbit(found).tolist() == [True, True, True, False, False, False]


@pytest.mark.parametrize("size", [1, 7, 16, 33])
def test_nan_stays_nan_and_the_largest_is_found_at_any_place_of_a_vector(size: int) -> None:
    for place in range(size):
        x = np.linspace(-3, -2, size, dtype=np.float32)
        x[place] = -1
        assert largest(x) == -1
        x[place] = np.nan
        assert np.isnan(largest(x))
        for loop in (exps, tanhs, erfs):
            assert np.isnan(run(loop, x)).tolist() == np.isnan(x).tolist()
