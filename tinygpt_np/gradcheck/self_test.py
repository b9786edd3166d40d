"""Test the compiled kernels on this machine, for `tinygpt doctor`.

Every operation of kernels/ is compared with ops/ in float64, at two sizes: one smaller than a
vector, and one that fills several vectors and leaves a remainder. Both start from the same float32
numbers, so the difference is float32 rounding.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from tinygpt_np import backend, ops
from tinygpt_np.compiled import cache as compiling
from tinygpt_np.config import generator
from tinygpt_np.gradcheck.cases import VARIANTS, Case, as_tuple, case, variants_of

# Relative to the norm of a tensor. A right kernel is off by a few times float32 rounding, 6e-8.
BOUND = 1e-5
LARGE = {
    "B": 2, "T": 37, "H": 3, "D": 24, "N": 70, "C": 136, "K": 150, "V": 83, "J": 2, "R": 3,
    "P": 41, "F": 77,
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """The largest relative error of an operation; or NaN, and the exception it raised."""

    operation: str
    error: float
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether the operation ran and its error is rounding."""
        return not self.problem and self.error <= BOUND


def self_test(announce: Callable[[str], None]) -> list[Found]:
    """Test each operation of kernels/. announce: called with each kernel that will be compiled."""
    with compiling.watch(announce):
        return [test(operation) for operation in ops.__all__]


def test(operation: str) -> Found:
    """Test an operation in all its variants, at both sizes."""
    try:
        module = getattr(backend.load("numba"), operation)
        errors = [
            error
            for name in variants_of(operation)
            for sizes in ({}, {letter: LARGE[letter] for letter in VARIANTS[name].letters})
            for error in errors_of(module, case(name, sizes=sizes))
        ]
    except Exception as error:  # The other operations are tested whatever was raised.
        return Found(operation, math.nan, f"{type(error).__name__}: {error}")
    return Found(operation, float(np.max(errors)))  # NaN if any error is.


def errors_of(module: ModuleType, given: Case) -> Iterator[float]:
    """Yield the relative errors of the output and of each gradient against ops/."""
    single = given.as_dtype("float32")
    double = {name: array.astype("float64") for name, array in single.items()}
    shape = given.forward(**double).shape
    doutput = generator(given.seed, "gradcheck").standard_normal(shape, np.float32)
    expected = tensors(given.module, {**given.args, **double}, doutput.astype("float64"))
    found = tensors(module, {**given.args, **single}, doutput)
    for reference, result in zip(expected, found, strict=True):
        if result.shape != reference.shape or result.dtype != np.float32:
            raise ValueError(
                f"expected float32 of shape {reference.shape}, not "
                f"{result.dtype} of shape {result.shape}"
            )
        yield float(np.linalg.norm(result - reference) / np.linalg.norm(reference))


def tensors(module: ModuleType, args: dict[str, Any], doutput: np.ndarray) -> list[np.ndarray]:
    """Return the output of an operation and its gradients."""
    output, saved = module.forward(**args)
    parts = (output, *as_tuple(module.backward(doutput, saved)))
    return [np.asarray(part) for part in parts if part is not None]
