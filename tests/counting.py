"""Numbers that count what is done with them, in arrays that count what is read and written.

What a formula says a task costs is held against a plain computation of it with these.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np


class Ledger:
    """What was spent so far. An element that is read or written again costs nothing more."""

    def __init__(self) -> None:
        self.flops = 0
        self.touched: set[tuple[str, int, Any]] = set()
        self.sizes: dict[int, int] = {}

    @property
    def bytes(self) -> int:
        return sum(self.sizes[array] for _, array, _ in self.touched)

    def array(self, values: np.ndarray) -> "Array":
        return Array(self, values)


class Number:
    """A float whose every operation is one FLOP."""

    def __init__(self, ledger: Ledger, value: float) -> None:
        self.ledger, self.value = ledger, value

    def spend(
        self, function: Callable[[float, float], float] | Callable[[float], float], *others: Any
    ) -> "Number":
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
    """An array of floats, or of integers, which are given as they are."""

    def __init__(self, ledger: Ledger, values: np.ndarray) -> None:
        self.ledger, self.values, self.shape = ledger, values, values.shape
        ledger.sizes[id(self)] = values.itemsize

    def __getitem__(self, place: Any) -> Any:
        self.ledger.touched.add(("read", id(self), place))
        value = self.values[place]
        return Number(self.ledger, float(value)) if self.values.dtype.kind == "f" else int(value)

    def __setitem__(self, place: Any, number: Number) -> None:
        self.ledger.touched.add(("written", id(self), place))
        self.values[place] = number.value


def total(numbers: list[Number]) -> Number:
    """The sum: one addition less than there are numbers."""
    first, *rest = numbers
    for number in rest:
        first = first + number
    return first
