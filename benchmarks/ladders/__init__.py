"""Ladders of kernels: one file an operation, one idea a rung, the last what training uses.

A file's docstring tells the story: each rung, what it gained, what was tried and did not help. Its
RUNGS are the kernels, from what anyone would write first on. The last ones are imported from
tinygpt_np/kernels, not copied: there stands how they work. What is compiled as `exact` does every
operation as it is written; as `kernel`, sums may be regrouped and products fused with sums, without
which no sum becomes vectors (tinygpt_np/compiled/cache.py).
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

from benchmarks.tasks import Arrays, Sizes

# The machine on which the gains in the docstrings were measured, in one run of all ladders.
STORIES_MEASURED_ON = "an Intel Xeon at 2.80 GHz (Ice Lake, AVX-512) with two cores, on 2026-11-23"


@dataclass(frozen=True)
class Call:
    """What a kernel is called with. threads: how many it may use; pool: of so many.

    guarded: the memory of the arrays, with what lies around them (see gate.py).
    """

    sizes: Sizes
    inputs: Arrays
    outputs: Arrays
    threads: int
    pool: ThreadPoolExecutor
    guarded: Sequence[Any] = ()

    @property
    def arrays(self) -> Arrays:
        return {**self.inputs, **self.outputs}

    def shares(self, count: int) -> list[slice]:
        """`count` rows shared out to the threads; fewer shares if there are fewer rows."""
        ends = [count * part // self.threads for part in range(self.threads + 1)]
        return [slice(low, high) for low, high in itertools.pairwise(ends) if low < high]

    def run_all(self, tasks: Sequence[Callable[[], Any]]) -> None:
        run_all(self.pool, tasks)


def run_all(pool: ThreadPoolExecutor, tasks: Sequence[Callable[[], Any]]) -> None:
    """Runs the first here and the others on threads of the pool, and waits for all."""
    mine, *others = tasks
    running = [pool.submit(task) for task in others]
    mine()
    for each in running:
        each.result()


@dataclass(frozen=True)
class Way:
    """How a rung goes in one direction.

    prepare: makes the step that is timed. What it does itself is not timed: cutting arrays into
    shares, making memory to work in, or running its own forward, for a backward.
    collect: writes what the step returned to the outputs, untimed; None if the step did.
    compiled: the Numba functions that do the work. goes_on: whether each step goes on from where
    the one before has come to, in arrays of a library.
    """

    prepare: Callable[[Call], Callable[[], Any]]
    compiled: tuple[Any, ...] = ()
    collect: Callable[[Call, Any], None] | None = None
    goes_on: bool = False


@dataclass(frozen=True)
class Rung:
    """ways: by direction. threads: how many it takes: "one", "several" (where there are), or "any".

    reference: whether it is there to compare with, and no step of the ladder.
    most: the FLOPs of the largest task that it can be asked to do.
    """

    name: str
    idea: str
    ways: dict[str, Way]
    threads: Literal["one", "several", "any"] = "one"
    reference: bool = False
    most: float = math.inf


def direct(function: Callable[..., Any], *compiled: Any) -> Way:
    """A function of the inputs and outputs, in their order."""

    def prepare(call: Call) -> Callable[[], Any]:
        return functools.partial(function, *call.inputs.values(), *call.outputs.values())

    own = (function,) if hasattr(function, "py_func") else ()
    return Way(prepare, compiled or own)


def by_rows(function: Callable[..., Any], *whole: str) -> Way:
    """The same, with the rows of all arrays but those named in `whole` shared out to threads."""

    def prepare(call: Call) -> Callable[[], Any]:
        arrays = call.arrays
        (count,) = {len(array) for name, array in arrays.items() if name not in whole}
        tasks = [
            functools.partial(
                function,
                *(a if name in whole else a[rows] for name, a in arrays.items()),
            )
            for rows in call.shares(count)
        ]
        return functools.partial(call.run_all, tasks)

    return Way(prepare, (function,))


def rungs(operation: str) -> list[Rung]:
    return importlib.import_module(f"benchmarks.ladders.{operation}").RUNGS


def story(operation: str) -> str:
    """Return the docstring of a ladder's file, which is read and not run: that would compile."""
    source = Path(__file__).with_name(f"{operation}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""
