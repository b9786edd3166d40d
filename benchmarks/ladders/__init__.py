"""Ladders of kernels: one file per operation, one idea per rung.

The docstring of a ladder describes its rungs, what each gained, and what was tried without
success. RUNGS are the kernels, from loops in Python to those that training uses, which are
imported from tinygpt_np, where they are explained. A function compiled as `strict` does each
operation as written; as `kernel`, sums may be reordered and multiply-adds fused, without which no
sum is vectorised. The docstrings tell what `parallel` gains or loses if all work is split; since
then, one thread does what takes less than SPLIT_FROM FLOPs (compiled/threads.py).
"""

import ast
import functools
import importlib
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.cases import Arrays, Sizes
from tinygpt_np.compiled.threads import threads_for

# The machine on which the gains in the docstrings were measured, in one run of all ladders.
MEASURED_ON = "an Intel Xeon at 2.80 GHz (Ice Lake, AVX-512) with two cores, on 2026-11-23"


@dataclass(frozen=True)
class Call:
    """The arrays of one call of a kernel, and the threads that it may use.

    pool: a thread pool of that size. flops: those of the formula. saves: called, untimed, whenever
    the inputs change; they see only the inputs that are `known` in this direction (see
    cases.Direction), the others are NaN.
    """

    sizes: Sizes
    inputs: Arrays
    outputs: Arrays
    threads: int
    pool: ThreadPoolExecutor
    flops: float = math.inf
    saves: list[Callable[[], Any]] = field(default_factory=list[Callable[[], Any]])

    @property
    def arrays(self) -> Arrays:
        """Inputs and outputs by name."""
        return {**self.inputs, **self.outputs}

    def share(self, count: int, part: Callable[[slice], Callable[[], Any]]) -> Callable[[], Any]:
        """Return a step in which each thread does its part of `count` rows.

        Work that is too short to be split is done by one thread, as in training.
        """
        parts = [part(rows) for rows in split(count, threads_for(self.flops, self.threads))]
        return parts[0] if len(parts) == 1 else functools.partial(run_all, self.pool, parts)


def split(count: int, threads: int) -> list[slice]:
    """Split `count` rows evenly between threads; none gets an empty slice."""
    ends = [count * part // threads for part in range(threads + 1)]
    return [slice(low, high) for low, high in itertools.pairwise(ends) if low < high]


def run_all(pool: ThreadPoolExecutor, parts: Sequence[Callable[[], Any]]) -> None:
    """Run the first part here and the others on the pool, and wait for all."""
    first, *others = parts
    running = [pool.submit(part) for part in others]
    first()
    for each in running:
        each.result()


@dataclass(frozen=True)
class Runner:
    """The implementation of one direction by a rung.

    prepare: makes the step that is timed. Its own work is not timed: splitting arrays, allocating
    scratch buffers. The arrays hold garbage then; the step is called again and again, with other
    values in the same arrays. What a backward takes from its forward is added to `Call.saves`.
    compiled: the Numba functions that do the work. collect: writes what the step returned to the
    outputs, untimed; None if the step writes them.
    """

    prepare: Callable[[Call], Callable[[], Any]]
    compiled: tuple[Any, ...] = ()
    collect: Callable[[Call, Any], None] | None = None


@dataclass(frozen=True)
class Rung:
    """A rung of a ladder, or a reference that is no part of it.

    runners: by direction. threads: "one", "several" (only where there are several), or "any".
    trained: whether it is the kernel that training uses, which references are compared with; one
    rung per direction on one thread and one on several. max_flops: the largest case that it is
    asked to compute.
    """

    name: str
    idea: str
    runners: dict[str, Runner]
    threads: Literal["one", "several", "any"] = "one"
    reference: bool = False
    trained: bool = False
    max_flops: float = math.inf


def of_rows(call: Call, rows: slice) -> Iterable[Any]:
    """Return some rows of all arrays that have as many as the first input, and the other arrays."""
    first, *_ = arrays = call.arrays.values()
    return [array[rows] if len(array) == len(first) else array for array in arrays]


def direct(
    function: Callable[..., Any], arguments: Callable[[Call, slice], Iterable[Any]] = of_rows
) -> Runner:
    """Return the runner of a function that each thread calls for its rows of the first input."""

    def prepare(call: Call) -> Callable[[], Any]:
        def part(rows: slice) -> Callable[[], Any]:
            return functools.partial(function, *arguments(call, rows))

        return call.share(len(next(iter(call.inputs.values()))), part)

    return Runner(prepare, compiled_only(function))


def both(forward: Runner | Callable[..., Any], backward: Runner | Any) -> dict[str, Runner]:
    """Return the runners of a forward and a backward; a function is called directly."""
    pair = {"forward": forward, "backward": backward}
    return {name: each if isinstance(each, Runner) else direct(each) for name, each in pair.items()}


def compiled_only(function: Any) -> tuple[Any, ...]:
    """Return a function if Numba compiled it."""
    return (function,) if hasattr(function, "py_func") else ()


def contiguous(runners: dict[str, Runner]) -> dict[str, Runner]:
    """Return runners that refuse arrays that are not C-contiguous, by a ValueError."""

    def refusing(prepare: Callable[[Call], Callable[[], Any]]) -> Callable[[Call], Any]:
        def checked(call: Call) -> Callable[[], Any]:
            for name, array in call.arrays.items():
                if not array.flags.c_contiguous:
                    raise ValueError(f"{name} must be C-contiguous, not of strides {array.strides}")
            return prepare(call)

        return checked

    return {name: replace(each, prepare=refusing(each.prepare)) for name, each in runners.items()}


def write(outputs: Sequence[np.ndarray], returned: Any) -> None:
    """Copy what a step returned to its outputs."""
    found = returned if len(outputs) > 1 else (returned,)
    for output, array in zip(outputs, found, strict=True):
        output[...] = np.asarray(array).reshape(output.shape)


def in_numpy(
    forward: Callable[..., Any], backward: Callable[..., Any], save: Callable[[Arrays], Any]
) -> dict[str, Runner]:
    """Return the runners of an operation of ops/; `save` gives what its forward saved, untimed."""

    def prepare_forward(call: Call) -> Callable[[], Any]:
        inputs, outputs = call.inputs.values(), [*call.outputs.values()]
        return lambda: write(outputs, forward(*inputs)[0])

    def prepare_backward(call: Call) -> Callable[[], Any]:
        upstream, outputs = next(iter(call.inputs.values())), [*call.outputs.values()]
        saved: list[Any] = []

        def keep() -> None:
            saved[:] = [save(call.inputs)]

        call.saves.append(keep)
        return lambda: write(outputs, backward(upstream, *saved))

    return {"forward": Runner(prepare_forward), "backward": Runner(prepare_backward)}


def collected(
    prepare: Callable[[Call], Callable[[], Any]], *names: str, compiled: tuple[Any, ...] = ()
) -> Runner:
    """Return a runner whose step returns the outputs, or arrays of these names; copied untimed."""

    def collect(call: Call, returned: Any) -> None:
        write([call.arrays[name] for name in names or call.outputs], returned)

    return Runner(prepare, compiled, collect)


def rungs(operation: str) -> list[Rung]:
    """Return the rungs of an operation."""
    return importlib.import_module(f"benchmarks.ladders.{operation}").RUNGS


def notes(operation: str) -> str:
    """Return the docstring of a ladder; the file is not imported, because that compiles kernels."""
    source = Path(__file__).with_name(f"{operation}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""
