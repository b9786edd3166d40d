"""Cases for kernels: one file per operation, with its directions, sizes, truth and costs.

This package needs NumPy only, so that peers in other environments can compute the same cases.
"""

import importlib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Sizes = dict[str, int]
# The sizes to choose from: those of a micro-batch of the workloads of these names (see
# models/workloads.py), and "awkward" ones that no vector or tile divides.
SHAPES = ("cpu", "lecture", "gpt2", "awkward")
OPERATIONS = ("matmul", "softmax", "attention", "cross_entropy", "layer_norm", "gelu", "adamw")


@dataclass(frozen=True)
class Expected:
    """The float64 values that an array should hold, and the error bound of each element.

    rows: which rows of the array the values are of; None for all of them.
    """

    values: np.ndarray
    bound: np.ndarray | float
    rows: np.ndarray | None = None


@dataclass(frozen=True)
class Direction:
    """An operation in one direction.

    inputs: makes the arrays that a kernel is given, float32 and integers, with outliers also in the
    first and last elements, where off-by-one errors show. outputs: the shapes of the float32 arrays
    that it writes, in letters. changed: the inputs that it overwrites. truth: of each array that is
    written. flops, bytes: the least that the formula needs; an exponential, logarithm, root,
    division or comparison counts as one FLOP, and each array counts once for being read and once
    for being written.
    """

    inputs: Callable[[Sizes, np.random.Generator], Arrays]
    outputs: dict[str, str]
    truth: Callable[[Arrays], dict[str, Expected]]
    flops: Callable[[Sizes], int]
    bytes: Callable[[Sizes], int]
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class KernelCase:
    """An operation in one direction at some sizes."""

    operation: str
    direction: str
    shape: str
    sizes: Sizes
    how: Direction

    @property
    def flops(self) -> int:
        """FLOPs of one step."""
        return self.how.flops(self.sizes)

    @property
    def bytes(self) -> int:
        """Bytes that one step reads and writes."""
        return self.how.bytes(self.sizes)

    @property
    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the outputs by name."""
        return {name: shape_of(letters, self.sizes) for name, letters in self.how.outputs.items()}


def directions(operation: str) -> tuple[str, ...]:
    """Return the directions of an operation."""
    return tuple(module(operation).DIRECTIONS)


def case(operation: str, direction: str, shape: str) -> KernelCase:
    """Return a case by its names."""
    found = module(operation)
    return KernelCase(operation, direction, shape, found.SIZES[shape], found.DIRECTIONS[direction])


def module(operation: str) -> Any:
    """Return the module of an operation."""
    return importlib.import_module(f"benchmarks.cases.{operation}")


def shape_of(letters: str, sizes: Sizes) -> tuple[int, ...]:
    """Return a shape given in the letters of sizes and digits, such as "BT3HD"."""
    return tuple(int(each) if each.isdigit() else sizes[each] for each in letters)


def count(letters: str, sizes: Sizes) -> int:
    """Return the number of elements of an array whose shape is given in letters."""
    return math.prod(shape_of(letters, sizes))


def outliers(array: np.ndarray, rng: np.random.Generator, factor: float) -> np.ndarray:
    """Multiply the corners and 1 % of an array with one or two axes by `factor`, in place."""
    far = rng.random(array.shape) < 0.01
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        far[corner[: array.ndim]] = True
    array[far] *= factor
    return array


def unchecked(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Return an operation of ops/ without the checks of its arguments."""
    return inspect.unwrap(operation)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return standard normal float32 values."""
    return rng.standard_normal(shape, dtype=np.float32)
