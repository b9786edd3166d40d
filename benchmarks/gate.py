"""The gate before the clock: what a kernel writes is held against float64, or it is not timed.

It is called with fresh random inputs and outliers among them, and again with others, and once more
with these. What it writes is NaN before each call, so that nothing left out can look right; what it
only reads, and what lies around its arrays, must stay as it was; and each number must be as near to
the truth as rounding explains, place by place.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.ladders import Call
from benchmarks.tasks import Task, Truth

# Twice, or a kernel that returns what it returned last would pass.
TRIALS = 2
LINE, GUARD = 64, 0xA5  # bytes of a line of the cache, and what stands in a guard


class Wrong(Exception):  # noqa: N818 - not an error of ours: a kernel is wrong.
    """Says where a kernel is wrong."""


class Trial:
    """Inputs of a task and what must come of them."""

    def __init__(self, task: Task, seed: int, number: int) -> None:
        self.task = task
        self.inputs = task.how.inputs(task.sizes, np.random.default_rng((seed, number)))
        self.truth = task.how.truth(self.inputs)

    def call(self, threads: int, pool: ThreadPoolExecutor) -> Call:
        """A call of its own arrays, with nothing in its outputs yet."""
        guarded: list[Guarded] = []

        def room(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
            guarded.append(Guarded(shape, np.dtype(dtype)))
            return guarded[-1].array

        inputs = {name: room(array.shape, array.dtype) for name, array in self.inputs.items()}
        shapes = self.task.how.outputs(self.task.sizes)
        outputs = {name: room(shape, np.float32) for name, shape in shapes.items()}
        call = Call(self.task.sizes, inputs, outputs, threads, pool, guarded)
        for name, array in self.inputs.items():
            inputs[name][...] = array
        self.poison(call)
        return call

    def poison(self, call: Call) -> None:
        """Puts NaN into the outputs, and what is changed back to what it was."""
        for array in call.outputs.values():
            array.fill(np.nan)
        for name in self.task.how.changed:
            call.inputs[name][...] = self.inputs[name]

    def check(self, call: Call) -> None:
        """Raises Wrong unless the call did what it should."""
        for name, array in self.inputs.items():
            if name not in self.task.how.changed and not same(array, call.inputs[name]):
                raise Wrong(f"{name} is changed, and should only be read")
        if not all(each.intact() for each in call.guarded):
            raise Wrong("something is written before or behind an array")
        for name, truth in self.truth.items():
            compare(name, call.arrays[name], truth)


class Guarded:
    """An array between two guards, which begins with a line of the cache, as those of training do.

    Where it begins makes a kernel of microseconds up to a third slower in one process than in
    another.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        size = math.prod(shape) * dtype.itemsize
        self.memory = np.full(size + 3 * LINE, GUARD, np.uint8)
        self.start = LINE + -self.memory.ctypes.data % LINE
        self.end = self.start + size
        self.array = self.memory[self.start : self.end].view(dtype).reshape(shape)

    def intact(self) -> bool:
        guards = self.memory[: self.start], self.memory[self.end :]
        return all(bool((guard == GUARD).all()) for guard in guards)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def compare(name: str, found: np.ndarray, truth: Truth) -> None:
    """Raises Wrong at the worst place, unless |found - truth| <= bound everywhere. NaN is wrong."""
    bound = np.broadcast_to(truth.bound, truth.values.shape)
    error = np.abs(found.astype(np.float64) - truth.values)
    wrong = ~(error <= bound)
    if not wrong.any():
        return
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.where(wrong, np.nan_to_num(error / bound, nan=np.inf), 0.0)
    worst = tuple(int(i) for i in np.unravel_index(np.argmax(excess), error.shape))
    where = f"{name}[{', '.join(map(str, worst))}]"
    raise Wrong(
        f"{where} is {found[worst]:.6g}, should be {truth.values[worst]:.6g} ± {bound[worst]:.1g}; "
        f"{wrong.sum()} of {error.size} places are wrong"
    )
