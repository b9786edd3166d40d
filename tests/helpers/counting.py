"""Numbers that count the operations on them, in arrays that count what is read and written.

They check the FLOPs and bytes that a case claims against a plain computation of it.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import cases
from benchmarks.cases import KernelCase, Sizes
from benchmarks.harness import gate


class Ledger:
    """The cost so far; reading or writing an element again costs nothing."""

    def __init__(self) -> None:
        self.flops = 0
        self.touched: set[tuple[str, int, Any]] = set()
        self.sizes: dict[int, int] = {}

    @property
    def bytes(self) -> int:
        return sum(self.sizes[array] for _, array, _ in self.touched)

    def array(self, values: np.ndarray, itemsize: int = 4) -> "Array":
        """Return an array that counts, with elements of a size."""
        return Array(self, values, itemsize)


class Number:
    """A float of which every operation is one FLOP."""

    def __init__(self, ledger: Ledger, value: float) -> None:
        self.ledger, self.value = ledger, value

    def spend(
        self, function: Callable[[float, float], float] | Callable[[float], float], *others: Any
    ) -> "Number":
        """Return the result of an operation, and count it."""
        self.ledger.flops += 1
        values = [other.value if isinstance(other, Number) else other for other in others]
        return Number(self.ledger, function(self.value, *values))

    def __add__(self, other: Any) -> "Number":
        return self.spend(operator.add, other)

    def __sub__(self, other: Any) -> "Number":
        return self.spend(operator.sub, other)

    def __mul__(self, other: Any) -> "Number":
        return self.spend(operator.mul, other)

    def __truediv__(self, other: Any) -> "Number":
        return self.spend(lambda a, b: a / b, other)

    def larger(self, other: Any) -> "Number":
        return self.spend(max, other)

    def exp(self) -> "Number":
        return self.spend(math.exp)

    def log(self) -> "Number":
        return self.spend(math.log)

    def sqrt(self) -> "Number":
        return self.spend(math.sqrt)

    def tanh(self) -> "Number":
        return self.spend(math.tanh)


class Array:
    """An array of Numbers, or of plain integers."""

    def __init__(self, ledger: Ledger, values: np.ndarray, itemsize: int) -> None:
        self.ledger, self.values, self.shape = ledger, values, values.shape
        ledger.sizes[id(self)] = itemsize

    def __getitem__(self, place: Any) -> Any:
        self.ledger.touched.add(("read", id(self), place))
        value = self.values[place]
        return Number(self.ledger, float(value)) if self.values.dtype.kind == "f" else int(value)

    def __setitem__(self, place: Any, number: Number) -> None:
        self.ledger.touched.add(("written", id(self), place))
        self.values[place] = number.value


def total(numbers: list[Number]) -> Number:
    """Return the sum: one addition less than there are numbers."""
    first, *rest = numbers
    for number in rest:
        first = first + number
    return first


def assert_costs(operation: str, direction: str, sizes: Sizes, compute: Callable[..., Any]) -> None:
    """Fail unless a computation gives the right result at the cost that the case claims.

    compute takes the inputs and outputs of the case as arrays that count, and the sizes.
    """
    how = cases.module(operation).DIRECTIONS[direction]
    case = KernelCase(operation, direction, "tiny", sizes, how)
    problem = gate.Problem(case, 0, 0)
    call = problem.call(1, None)  # pyright: ignore[reportArgumentType]
    ledger = Ledger()
    arrays = {
        name: ledger.array(
            array if array.dtype.kind == "i" else array.astype(np.float64), array.itemsize
        )
        for name, array in call.arrays.items()
    }
    compute(**arrays, sizes=sizes)
    for name, truth in problem.truth.items():
        gate.compare(name, arrays[name].values, truth)
    assert ledger.flops == case.flops
    assert ledger.bytes == case.bytes
