"""What kernels are asked to do: one file an operation, its directions, sizes, truth and cost.

Needs NumPy alone, for peers that have another compiler, or none, do the same tasks.
"""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Sizes = dict[str, int]
# The sizes to choose from: those of a micro-batch of the works of that name (see works.py), and
# some that no vector or tile divides.
SHAPES = ("cpu", "lecture", "gpt2", "awkward")
OPERATIONS = ("matmul", "softmax", "attention", "cross_entropy", "layer_norm", "gelu", "adamw")


@dataclass(frozen=True)
class Truth:
    """What an array must hold, in float64, and by how much float32 may be off, place by place."""

    values: np.ndarray
    bound: np.ndarray | float


@dataclass(frozen=True)
class Direction:
    """An operation in one direction.

    inputs: from sizes and a generator, the arrays that a kernel is given; float32 and integers,
    with outliers, also in the first and the last places, where what is off by one shows.
    outputs: the shapes of the float32 arrays that it writes. changed: the inputs in whose place it
    writes; it leaves the others as they are. truth: of each array that is written.
    flops, bytes: what it takes at the least, by the formula of the operation. An exponential, a
    logarithm, a root, a quotient, a comparison count as one FLOP each. Each array counts once for
    being read and once for being written.
    """

    inputs: Callable[[Sizes, np.random.Generator], Arrays]
    outputs: Callable[[Sizes], dict[str, tuple[int, ...]]]
    truth: Callable[[Arrays], dict[str, Truth]]
    flops: Callable[[Sizes], int]
    bytes: Callable[[Sizes], int]
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """A direction at some sizes."""

    operation: str
    direction: str
    shape: str
    sizes: Sizes
    how: Direction

    @property
    def name(self) -> str:
        return f"{self.operation} {self.direction} {self.shape}"

    @property
    def flops(self) -> int:
        return self.how.flops(self.sizes)

    @property
    def bytes(self) -> int:
        return self.how.bytes(self.sizes)


def directions(operation: str) -> tuple[str, ...]:
    return tuple(module(operation).DIRECTIONS)


def task(operation: str, direction: str, shape: str) -> Task:
    """Raises KeyError if there is none of these names."""
    found = module(operation)
    return Task(operation, direction, shape, found.SIZES[shape], found.DIRECTIONS[direction])


def module(operation: str) -> Any:
    return importlib.import_module(f"benchmarks.tasks.{operation}")


def outliers(array: np.ndarray, rng: np.random.Generator, factor: float) -> np.ndarray:
    """The array, with its corners and a hundredth of its places multiplied by `factor`, in place.

    array: of two dimensions, or of one.
    """
    far = rng.random(array.shape) < 0.01
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        far[corner[: array.ndim]] = True
    array[far] *= factor
    return array


def plain(operation: Callable[..., Any]) -> Callable[..., Any]:
    """An operation of ops/ without the check of what it is given."""
    return inspect.unwrap(operation)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)
