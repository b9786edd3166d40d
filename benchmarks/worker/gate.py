"""The gate: a kernel is timed only if it computes what it should.

A kernel is called with random inputs that contain outliers, then with other inputs, and once more
with these. Outputs are filled with NaN before each call, so that an element that is not written
is noticed. Inputs that are only read, and the memory around all arrays, must not change; and each
element of the result must be within its error bound of the float64 truth.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.cases import Expected, KernelCase
from benchmarks.ladders import Call

# Two sets of inputs: with one, a kernel that returns its previous result would pass.
PROBLEMS = 2
LINE, GUARD = 64, 0xA5  # bytes of a cache line, and the value that guards are filled with


class WrongResult(Exception):  # noqa: N818 - a finding about a kernel
    """Raised when a kernel is wrong; says where."""


class Problem:
    """Random inputs of a case and the results expected for them."""

    def __init__(self, case: KernelCase, seed: int, number: int) -> None:
        self.case = case
        self.inputs = case.inputs(np.random.default_rng((seed, number)))
        self.truth = case.truth(self.inputs)

    def call(self, threads: int, pool: ThreadPoolExecutor) -> Call:
        """Return a call with its own copy of the inputs and poisoned outputs."""
        guarded: list[Guarded] = []

        def allocate(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
            guarded.append(Guarded(shape, np.dtype(dtype)))
            return guarded[-1].array

        inputs = {name: allocate(array.shape, array.dtype) for name, array in self.inputs.items()}
        shapes = self.case.output_shapes
        outputs = {name: allocate(shape, np.float32) for name, shape in shapes.items()}
        call = Call(self.case.sizes, inputs, outputs, threads, pool, guarded)
        for name, array in self.inputs.items():
            inputs[name][...] = array
        self.poison(call)
        return call

    def poison(self, call: Call) -> None:
        """Fill the outputs with NaN and restore the inputs that the kernel overwrites."""
        for array in call.outputs.values():
            array.fill(np.nan)
        self.restore(call)

    def restore(self, call: Call) -> tuple[()]:
        """Restore the inputs that the kernel overwrites; return the arguments of a step: none."""
        for name in self.case.how.changed:
            call.inputs[name][...] = self.inputs[name]
        return ()

    def check(self, call: Call) -> None:
        """Raise WrongResult unless the arrays of a call hold what they should."""
        for name, array in self.inputs.items():
            unchanged = array.tobytes() == call.inputs[name].tobytes()
            if name not in self.case.how.changed and not unchanged:
                raise WrongResult(f"the input {name} was changed")
        if not all(each.intact() for each in call.guarded):
            raise WrongResult("memory before or after an array was written to")
        for name, truth in self.truth.items():
            compare(name, call.arrays[name], truth)


class Guarded:
    """An array with guards around it that starts at a cache line, as the arrays of training do."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        size = math.prod(shape) * dtype.itemsize
        self.memory = np.full(size + 3 * LINE, GUARD, np.uint8)
        self.start = LINE + -self.memory.ctypes.data % LINE
        self.end = self.start + size
        self.array = self.memory[self.start : self.end].view(dtype).reshape(shape)

    def intact(self) -> bool:
        """Return whether nothing was written to the guards."""
        guards = self.memory[: self.start], self.memory[self.end :]
        return all(bool((guard == GUARD).all()) for guard in guards)


def compare(name: str, array: np.ndarray, truth: Expected) -> None:
    """Raise WrongResult, naming the worst element, unless |array - truth| <= bound everywhere.

    If the truth is known for some rows only, the other rows must be finite. NaN is wrong.
    """
    if truth.rows is not None and not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise WrongResult(f"{name}{list(index)} is {array[index]}")
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
