"""Arrays for the tests of kernels, and the operations of ops/ without their checks."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import Expected
from benchmarks.cases.rounding import TINY
from benchmarks.worker.problem import compare
from tinygpt_np.compiled.simd.memory import Matrix


def normals(seed: int) -> tuple[np.random.Generator, Callable[..., np.ndarray]]:
    """Return a generator, and a function that draws float32 arrays from it."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return rng, normal


def poisoned(*shape: int) -> np.ndarray:
    """Return an output of NaN, so that numbers that a kernel does not write show."""
    return np.full(shape, np.nan, np.float32)


def wide(*arrays: np.ndarray) -> list[np.ndarray]:
    return [array.astype(np.float64) for array in arrays]


def assert_within(found: np.ndarray, truth: np.ndarray, bound: np.ndarray | float) -> None:
    """Check |found - truth| <= bound everywhere."""
    assert found.shape == truth.shape
    compare("result", found, Expected(truth, bound))


# Below, at and above the width of a vector, and large.
SIZES = [1, 2, 7, 15, 16, 17, 127, 1000, 70001]


def assert_elementwise(
    twin: Any, original: Any, size: int, bounds: Callable[[np.ndarray], tuple[Any, Any]]
) -> None:
    """Check y = f(x), and dx = dy·f'(x), which may be dy, within bounds on the errors of f, f'."""
    _, normal = normals(size)
    x, dy = normal(size) * np.float32(3), normal(size)
    x[::3] *= np.float32(1e-3)
    x[-1] = 1e4 if size % 2 else -1e4
    x64, dy64 = wide(x, dy)
    bound, slope_bound = bounds(x64)
    truth, saved = original.forward(x64)
    y = poisoned(size)
    twin.forward_values(x, y)
    assert_within(y, truth, bound)
    for dx in (poisoned(size), dy.copy()):
        twin.backward_values(dy if np.isnan(dx).all() else dx, x, dx)
        assert_within(dx, original.backward(dy64, saved), np.abs(dy64) * slope_bound + TINY)


def matrix(array: np.ndarray) -> Matrix:
    """Return an array with contiguous rows as kernels take it."""
    return Matrix(array.ctypes.data, array.strides[0])
