"""Arrays for the tests of kernels, and the operations of ops/ without their checks."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np


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


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return an operation of ops/ without the check of its arguments."""
    return inspect.unwrap(function)
