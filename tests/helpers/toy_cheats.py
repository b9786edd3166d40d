"""Runners that seem right or fast and are not, of softmax, a matmul, and AdamW in place."""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from benchmarks.cases.adamw import NUMBERS
from benchmarks.ladders import Call, Runner
from benchmarks.ladders.adamw import numpy_update
from tinygpt_np.compiled.kernels import softmax as compiled
from tinygpt_np.ops import softmax

ALL = slice(None)
# Steps that the gate takes before the first turn.
GATE = 4
pool = ThreadPoolExecutor(1)
Step = Callable[[], Any]


def work(call: Call, rows: slice = ALL) -> None:
    """Compute some rows as they should be."""
    if "probs" in call.outputs:
        call.outputs["probs"][rows] = softmax.forward(call.inputs["x"][rows])[0]
    elif "weight" in call.inputs:
        np.matmul(call.inputs["x"][rows], call.inputs["weight"], call.outputs["y"][rows])
    else:
        param, grad, first, second = (array[rows] for array in call.inputs.values())
        numpy_update(param, grad, first, second, NUMBERS)


def results(call: Call) -> list[np.ndarray]:
    """Return the arrays that are written: the outputs, or what AdamW overwrites."""
    return [*call.outputs.values()] or [call.inputs[name] for name in ("param", "first", "second")]


def numbered(act: Callable[[int, Call], None]) -> Runner:
    """Return a runner whose step is told its number, from 1 on."""

    def prepare(call: Call) -> Step:
        taken = 0

        def step() -> None:
            nonlocal taken
            taken += 1
            act(taken, call)

        return step

    return Runner(prepare)


def working(when: Callable[[int], bool]) -> Runner:
    """Return a runner that works in some steps only."""
    return numbered(lambda number, call: work(call) if when(number) else None)


def cached(key: Callable[[np.ndarray], Any]) -> Runner:
    """Return a runner that computes once for each key of its inputs, and copies otherwise."""

    def prepare(call: Call) -> Step:
        kept: dict[Any, list[np.ndarray]] = {}

        def step() -> None:
            found = tuple(key(array) for array in call.inputs.values())
            if found in kept:
                for array, values in zip(results(call), kept[found], strict=True):
                    array[...] = values
            else:
                work(call)
                kept[found] = [array.copy() for array in results(call)]

        return step

    return Runner(prepare)


def skipping(call: Call) -> Step:
    """Do nothing if the inputs are those of the step before."""
    last = [array.copy() for array in call.inputs.values()]

    def step() -> None:
        if not all(map(np.array_equal, call.inputs.values(), last)):
            for array, values in zip(last, call.inputs.values(), strict=True):
                array[...] = values
            work(call)

    return step


def in_prepare(call: Call) -> Step:
    """Compute before the clock starts, and copy within the step."""
    given = [array.copy() for array in results(call)]
    work(call)
    kept = [array.copy() for array in results(call)]
    for array, values in zip(results(call), given, strict=True):
        array[...] = values

    def step() -> None:
        for array, values in zip(results(call), kept, strict=True):
            array[...] = values

    return step


def part_of(call: Call, eighth: int | None) -> tuple[list[slice], slice]:
    """Return the rows but for an eighth, and that eighth; all for None."""
    if eighth is None:
        return [], ALL
    count = len(results(call)[0])
    low, high = eighth * count // 8, (eighth + 1) * count // 8
    return [slice(low), slice(high, None)], slice(low, high)


def late(eighth: int | None, when: Callable[[int], bool], work: Any = work) -> Runner:
    """Return a runner that leaves an eighth of the rows, or all, to a thread and does not wait."""

    def act(number: int, call: Call) -> None:
        own, left = part_of(call, eighth)
        for rows in own:
            work(call, rows)
        waiting = pool.submit(work, call, left)
        if not when(number):
            waiting.result()

    return numbered(act)


def without_gil(call: Call, rows: slice = ALL) -> None:
    """Compute some rows of a softmax without holding the GIL."""
    compiled.forward_rows(call.inputs["x"][rows], call.outputs["probs"][rows])


def overrun(offset: int, count: int) -> Runner:
    """Return a runner that writes bytes before its last result (offset < 0) or behind it."""

    def act(_: int, call: Call) -> None:
        work(call)
        array = results(call)[-1]
        end = 0 if offset < 0 else array.nbytes
        ctypes.memset(array.ctypes.data + end + offset, 0, count)

    return numbered(act)


def contiguous_only(call: Call) -> Step:
    """Read the inputs as if they were contiguous."""
    inputs = {name: np.ndarray(a.shape, a.dtype, there(a)) for name, a in call.inputs.items()}
    return partial(work, Call(call.sizes, inputs, call.outputs, call.threads, call.pool))


def aligned_only(call: Call) -> Step:
    """Read the inputs as if they began with a cache line; refuse all that is not contiguous."""
    if not all(array.flags.c_contiguous for array in call.arrays.values()):
        raise TypeError("this must be contiguous")
    inputs = {
        name: np.ndarray(a.shape, a.dtype, there(a, -(a.ctypes.data % 64)))
        for name, a in call.inputs.items()
    }
    return partial(work, Call(call.sizes, inputs, call.outputs, call.threads, call.pool))


def there(array: np.ndarray, offset: int = 0) -> Any:
    """Return the memory where an array begins."""
    return (ctypes.c_char * array.nbytes).from_address(array.ctypes.data + offset)


def only_where_poisoned(call: Call) -> Step:
    """Work only if the first result is NaN."""
    return lambda: work(call) if np.isnan(results(call)[0].flat[0]) else None


def always(_: int) -> bool:
    return True


def in_gate(number: int) -> bool:
    return number <= GATE


def in_turns(number: int) -> bool:
    return number > GATE + 1


def head(array: np.ndarray) -> bytes:
    return array.reshape(-1)[:: max(array.size // 16, 1)].tobytes()


CHEATS: dict[str, Runner] = {
    "stops after two steps": working(lambda number: number <= 2),
    "stops in the first turn": working(lambda number: number <= GATE + 2),
    "stops in the last turn": working(lambda number: number <= 18),
    "pauses in a turn": working(lambda number: not 8 < number < 16),
    "caches by pointer": cached(lambda array: array.ctypes.data),
    "caches by some values": cached(head),
    "skips inputs that it knows": Runner(skipping),
    "computes in prepare": Runner(in_prepare),
    "leaves the last eighth": late(7, always),
    "leaves the first eighth": late(0, always),
    "leaves all": late(None, always),
    "leaves an eighth in the gate": late(7, in_gate),
    "leaves an eighth in turns": late(7, in_turns),
    "writes 256 bytes behind": overrun(0, 256),
    "writes 4000 bytes behind": overrun(0, 4000),
    "writes 256 bytes before": overrun(-256, 256),
    "writes 4000 bytes before": overrun(-4000, 4000),
    "assumes contiguous memory": Runner(contiguous_only),
    "assumes aligned memory": Runner(aligned_only),
}  # fmt: skip
# These of a softmax.
SOFTMAX_CHEATS: dict[str, Runner] = {
    "works only where poisoned": Runner(only_where_poisoned),
    "leaves an eighth without the GIL": late(7, always, without_gil),
    "leaves all without the GIL": late(None, always, without_gil),
    "leaves an eighth without the GIL in turns": late(7, in_turns, without_gil),
}
