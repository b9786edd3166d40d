"""Ladders of kernels: one file per operation, one idea per rung.

The docstring of a ladder describes its rungs, what each gained, and what was tried without
success. RUNGS are the kernels, from loops in Python to the kernel that training uses; the last
ones are imported from tinygpt_np, where they are explained. A function compiled as `strict` does
each operation as written; as `kernel`, sums may be reordered and multiply-adds fused, without
which no sum is vectorised.
"""

import ast
import functools
import importlib
import itertools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.cases import Arrays, Sizes

# The machine on which the gains in the docstrings were measured, in one run of all ladders.
MEASURED_ON = "an Intel Xeon at 2.80 GHz (Ice Lake, AVX-512) with two cores, on 2026-11-23"


@dataclass(frozen=True)
class Call:
    """The arrays of one call of a kernel, and the threads that it may use.

    pool: a thread pool of that size. guarded: the memory of the arrays with its guards (gate.py).
    """

    sizes: Sizes
    inputs: Arrays
    outputs: Arrays
    threads: int
    pool: ThreadPoolExecutor
    guarded: Sequence[Any] = ()

    @property
    def arrays(self) -> Arrays:
        """Inputs and outputs by name."""
        return {**self.inputs, **self.outputs}

    def split(self, count: int) -> list[slice]:
        """Split `count` rows evenly between the threads; none gets an empty slice."""
        ends = [count * part // self.threads for part in range(self.threads + 1)]
        return [slice(low, high) for low, high in itertools.pairwise(ends) if low < high]

    def run_all(self, parts: Sequence[Callable[[], Any]]) -> None:
        """Run one part per thread and wait for all."""
        run_all(self.pool, parts)


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
    scratch buffers, running the forward of a backward. compiled: the Numba functions
    that do the work. collect: writes what the step returned to the outputs, untimed; None if the
    step writes them.
    """

    prepare: Callable[[Call], Callable[[], Any]]
    compiled: tuple[Any, ...] = ()
    collect: Callable[[Call, Any], None] | None = None


@dataclass(frozen=True)
class Rung:
    """A rung of a ladder, or a reference that is no part of it.

    runners: by direction. threads: "one", "several" (only where there are several), or "any".
    max_flops: the largest case that it is asked to compute.
    """

    name: str
    idea: str
    runners: dict[str, Runner]
    threads: Literal["one", "several", "any"] = "one"
    reference: bool = False
    max_flops: float = math.inf


def direct(function: Callable[..., Any]) -> Runner:
    """Return the runner of a function of the inputs and outputs."""

    def prepare(call: Call) -> Callable[[], Any]:
        return functools.partial(function, *call.arrays.values())

    return Runner(prepare, compiled_only(function))


def both(forward: Runner | Callable[..., Any], backward: Runner | Any) -> dict[str, Runner]:
    """Return the runners of a forward and a backward; a function is called directly."""
    pair = {"forward": forward, "backward": backward}
    return {name: each if isinstance(each, Runner) else direct(each) for name, each in pair.items()}


def compiled_only(function: Any) -> tuple[Any, ...]:
    """Return a function if Numba compiled it."""
    return (function,) if hasattr(function, "py_func") else ()


def by_rows(function: Callable[..., Any]) -> Runner:
    """Return the runner of a function of the inputs and outputs, their rows split over threads."""

    def prepare(call: Call) -> Callable[[], Any]:
        arrays = call.arrays.values()
        (count,) = {len(array) for array in arrays}
        parts = [
            functools.partial(function, *(array[rows] for array in arrays))
            for rows in call.split(count)
        ]
        return functools.partial(call.run_all, parts)

    return Runner(prepare, (function,))


def collected(prepare: Callable[[Call], Callable[[], Any]], *names: str) -> Runner:
    """Return a runner that copies what the step returned to the arrays of these names."""

    def collect(call: Call, returned: Any) -> None:
        found = returned if len(names) > 1 else (returned,)
        for name, array in zip(names, found, strict=True):
            call.arrays[name][...] = np.asarray(array).reshape(call.arrays[name].shape)

    return Runner(prepare, collect=collect)


def rungs(operation: str) -> list[Rung]:
    """Return the rungs of an operation."""
    return importlib.import_module(f"benchmarks.ladders.{operation}").RUNGS


def notes(operation: str) -> str:
    """Return the docstring of a ladder; the file is not imported, because that compiles kernels."""
    source = Path(__file__).with_name(f"{operation}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""
