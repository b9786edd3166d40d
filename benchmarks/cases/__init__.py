"""Cases for kernels: one file per operation, with its directions, sizes, truth and costs.

This package needs NumPy only, so that peers in other environments can compute the same cases.
"""

import importlib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.cases import shapes
from benchmarks.cases.shapes import Sizes

Arrays = dict[str, np.ndarray]
unchecked = inspect.unwrap  # returns an operation of ops/ without the checks of its arguments
# Those of GPT-2 and its training, and those of other models and recipes.
GPT2 = ("matmul", "softmax", "attention", "cross_entropy", "layer_norm", "gelu", "adamw")
OPERATIONS = (*GPT2, "rms_norm", "rotary", "swiglu", "relu_squared", "muon")


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

    Shapes are given in the letters of sizes and digits, such as "BT3HD".

    inputs, outputs: the shapes of the float32 arrays that a kernel reads and writes. truth: of each
    array that is written, given the inputs in float64. flops, bytes: the least that the formula
    needs, given the sizes, with FLOPs counted as in flops.py. Without `bytes` each array counts
    once for being read and once for being written. edit: changes the random inputs in place or
    returns others, given the generator and the inputs. changed: the inputs that a kernel
    overwrites. known: the inputs that are known before the clock starts, such as those of a
    backward's forward (see ladders.Call). outliers: the factor of some random elements. between:
    the shape of the arrays between inputs and outputs, if these are large.
    """

    inputs: dict[str, str]
    outputs: dict[str, str]
    truth: Callable[..., dict[str, Expected]]
    flops: Callable[[Any], int]
    bytes: Callable[[Any], int] | None = None
    edit: Callable[..., Arrays | None] | None = None
    changed: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    outliers: float = 20
    between: str = ""


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
        return self.how.flops(SimpleNamespace(**self.sizes))

    @property
    def bytes(self) -> int:
        """Bytes that one step reads and writes."""
        how = self.how
        if how.bytes is not None:
            return how.bytes(SimpleNamespace(**self.sizes))
        changed = [how.inputs[name] for name in how.changed]
        shapes = [*how.inputs.values(), *how.outputs.values(), *changed]
        return 4 * sum(math.prod(shape_of(letters, self.sizes)) for letters in shapes)

    @property
    def numbers(self) -> int:
        """The numbers in all arrays, and in one between inputs and outputs."""
        shapes = [*self.how.inputs.values(), *self.how.outputs.values(), self.how.between]
        return sum(math.prod(shape_of(letters, self.sizes)) for letters in shapes if letters)

    @property
    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the outputs by name."""
        return {name: shape_of(letters, self.sizes) for name, letters in self.how.outputs.items()}

    def inputs(self, rng: np.random.Generator, spots: int = 0) -> Arrays:
        """Return random inputs; `spots` elements of each differ from those without spots."""
        found: Arrays = {}
        elsewhere = np.random.default_rng(spots)
        for name, letters in self.how.inputs.items():
            normal = rng.standard_normal(shape_of(letters, self.sizes), dtype=np.float32)
            found[name] = outliers(normal, rng, self.how.outliers)
            flat = found[name].reshape(-1)
            flat[elsewhere.integers(flat.size, size=spots)] += 1
        return found if self.how.edit is None else found | (self.how.edit(rng, **found) or {})

    def truth(self, inputs: Arrays) -> dict[str, Expected]:
        """Return the values expected for these inputs."""
        exact = {
            name: array.astype(np.float64) if array.dtype.kind == "f" else array
            for name, array in inputs.items()
        }
        return self.how.truth(**exact)


def directions(operation: str) -> tuple[str, ...]:
    """Return the directions of an operation."""
    return tuple(module(operation).DIRECTIONS)


def case(operation: str, direction: str, shape: str) -> KernelCase:
    """Return a case by its names."""
    how = module(operation).DIRECTIONS[direction]
    return KernelCase(operation, direction, shape, sizes(operation, shape), how)


def sizes(operation: str, shape: str) -> Sizes:
    """Return the sizes of an operation at a shape, or raise ValueError; see shapes.py."""
    return shapes.sizes(operation, module(operation).sizes, shape)


def swept(operation: str) -> str:
    """Return the letters of the sizes that a sweep of an operation raises together."""
    return module(operation).SWEPT


def module(operation: str) -> Any:
    """Return the module of an operation."""
    return importlib.import_module(f"benchmarks.cases.{operation}")


def shape_of(letters: str, sizes: Sizes) -> tuple[int, ...]:
    """Return a shape given in the letters of sizes and digits."""
    return tuple(int(each) if each.isdigit() else sizes[each] for each in letters)


def outliers(array: np.ndarray, rng: np.random.Generator, factor: float) -> np.ndarray:
    """Multiply 1 % of an array, and its corners where off-by-one errors show, in place."""
    if factor != 1:
        rows = array.reshape(len(array), -1)
        far = rng.random(rows.shape) < 0.01
        far[[0, 0, -1, -1], [0, -1, 0, -1]] = True
        rows[far] *= factor
    return array
