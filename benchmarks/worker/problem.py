"""The problems of the gate: random inputs of a case, and which results are right for them.

An element is right if it is within its error bound of the float64 truth. Inputs that are only read
must not change.
"""

import math
from typing import NamedTuple

import numpy as np

from benchmarks.cases import Expected, KernelCase

# Problems whose values differ everywhere, and the elements of each input that differ in one more.
FRESH, SPOTS = 2, 7
# Elements compared at a time, which stay in cache.
BLOCK = 1 << 16


class WrongResult(Exception):  # noqa: N818 - a finding about a kernel
    """Raised when a kernel is wrong; says where."""


class Accepted(NamedTuple):
    """The lowest and the highest float32 that elements may be. rows: None for all of them."""

    low: np.ndarray
    high: np.ndarray
    rows: np.ndarray | None


class Problem:
    """Random inputs of a case and the results expected for them."""

    def __init__(self, case: KernelCase, seed: int, number: int, spots: int = 0) -> None:
        self.case = case
        self.inputs = case.inputs(np.random.default_rng((seed, number)), spots)
        self.accepted = {name: accept(each) for name, each in case.truth(self.inputs).items()}

    @property
    def nbytes(self) -> int:
        """The bytes of all inputs and outputs."""
        outputs = 4 * sum(map(math.prod, self.case.output_shapes.values()))
        return outputs + sum(array.nbytes for array in self.inputs.values())

    def check(self, found: dict[str, np.ndarray]) -> None:
        """Raise WrongResult unless the arrays hold what they should."""
        for name, array in self.inputs.items():
            if name not in self.case.how.changed:
                check_unchanged(name, found[name], array)
        if not all(within(found[name], each) for name, each in self.accepted.items()):
            for name, truth in self.case.truth(self.inputs).items():
                compare(name, found[name], truth)


def problems_of(case: KernelCase, seed: int) -> list[Problem]:
    """Return the problems of a case. With one, a kernel that repeats its result would pass."""
    fresh = [Problem(case, seed, number) for number in range(FRESH)]
    # Not noticed by a kernel that looks at some elements to tell whether its inputs are new.
    return [*fresh, Problem(case, seed, FRESH - 1, SPOTS)]


def accept(truth: Expected) -> Accepted:
    """Return the float32 numbers within the bounds of the truth: exactly these, in less memory."""

    def up(exact: np.ndarray) -> np.ndarray:
        rounded = exact.astype(np.float32)
        return np.where(rounded < exact, np.nextafter(rounded, np.float32(np.inf)), rounded)

    return Accepted(up(truth.values - truth.bound), -up(-truth.values - truth.bound), truth.rows)


def bits(array: np.ndarray) -> np.ndarray:
    """Return the bits of each element as an integer."""
    return array.view(f"u{array.itemsize}")


def within(array: np.ndarray, accepted: Accepted) -> bool:
    """Return whether all elements are accepted; those of rows without truth must be finite."""
    if accepted.rows is not None:
        if not np.isfinite(array).all():
            return False
        array = array[accepted.rows]
    found, low, high = array.reshape(-1), accepted.low.reshape(-1), accepted.high.reshape(-1)
    return all(
        ((found[part] >= low[part]) & (found[part] <= high[part])).all()
        for part in (slice(first, first + BLOCK) for first in range(0, found.size, BLOCK))
    )


def check_finite(name: str, array: np.ndarray) -> None:
    """Raise WrongResult if an element is not finite."""
    finite = np.isfinite(array)  # Once, because a thread of the kernel may be writing.
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise WrongResult(f"{name}{list(index)} is {array[index]}")


def check_unchanged(name: str, array: np.ndarray, before: np.ndarray) -> None:
    """Raise WrongResult if an array differs from what it was before."""
    changed = bits(array) != bits(before)
    if changed.any():
        index = tuple(int(i) for i in np.argwhere(changed)[0])
        raise WrongResult(
            f"the input {name} was changed: {name}{list(index)} is {array[index]:.6g}, expected "
            f"{before[index]:.6g}; {changed.sum()} of {changed.size} elements"
        )


def compare(name: str, array: np.ndarray, truth: Expected) -> None:
    """Raise WrongResult, naming the worst element, unless |array - truth| <= bound everywhere.

    If the truth is known for some rows only, the other rows must be finite. NaN is wrong.
    """
    if truth.rows is not None:
        check_finite(name, array)
    found = array if truth.rows is None else array[truth.rows]
    bound = np.broadcast_to(truth.bound, truth.values.shape)
    error = np.abs(found.astype(np.float64) - truth.values)
    wrong = ~(error <= bound)
    if not wrong.any():
        return
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.where(wrong, np.nan_to_num(error / bound, nan=np.inf), 0.0)
    worst = tuple(int(i) for i in np.unravel_index(np.argmax(excess), error.shape))
    index = worst if truth.rows is None else (int(truth.rows[worst[0]]), *worst[1:])
    raise WrongResult(
        f"{name}{list(index)} is {found[worst]:.6g}, expected {truth.values[worst]:.6g} "
        f"± {bound[worst]:.1g}; {wrong.sum()} of {error.size} elements are wrong"
    )
