"""A kernel of a user as a rung, in a worker process, where all that its file does happens."""

import ctypes
import functools
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import cases
from benchmarks.ladders import Call, Rung, Runner, compiled_only, write
from benchmarks.mine.signature import NUMBERS, SAVED, THREADS
from benchmarks.mine.source import Function, Kernel

Values = dict[str, Any]


def load(kernel: Kernel) -> Rung:
    """Return a kernel as a rung of the ladder of its operation."""
    source: Any = module(Path(kernel.path))
    function = getattr(source, kernel.function.name)

    def prepare(call: Call) -> Callable[[], Any]:
        values = {**call.arrays, **NUMBERS.get(kernel.operation, {}), **call.sizes}
        values[THREADS] = call.threads
        if hasattr(source, "omp_set_num_threads"):  # OpenMP was loaded with the kernel.
            source.omp_set_num_threads(call.threads)
        if kernel.save is not None:
            values[SAVED] = bound(source, kernel.save, values, ctypes.c_void_p)()
        return bound(source, kernel.function, values)

    def collect(call: Call, returned: Any) -> None:
        write([*call.outputs.values()], returned)

    outputs = {*cases.module(kernel.operation).DIRECTIONS[kernel.direction].outputs}
    returns = not outputs <= {*kernel.function.takes}
    runner = Runner(prepare, compiled_only(function), collect if returns else None)
    threads = "any" if kernel.parallel else "one"
    return Rung(kernel.name, "", {kernel.direction: runner}, threads)


def module(path: Path) -> Any:
    """Return a library, or an imported Python file, which finds modules next to it."""
    if path.suffix != ".py":
        return ctypes.CDLL(str(path))
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, found)
    try:
        spec.loader.exec_module(found)
    except SystemExit as error:
        raise ImportError(f"{path.name} exits when it is imported") from error
    return found


def bound(
    source: Any, function: Function, values: Values, returns: Any = None
) -> Callable[[], Any]:
    """Return the call of a function with its arguments. returns: its type in C."""
    arguments = [values[name] for name in function.takes]
    called = getattr(source, function.name)
    if function.types:
        arguments = [
            in_c(value, getattr(ctypes, kind))
            for value, kind in zip(arguments, function.types, strict=True)
        ]
        called.restype = returns
    return functools.partial(called, *arguments)


def in_c(value: Any, kind: Any) -> Any:
    """Return an argument of a function in C; an array as a pointer to it."""
    if not isinstance(value, np.ndarray):
        return kind(value)
    if not value.flags.c_contiguous:
        raise ValueError("C takes contiguous arrays only")
    return value.ctypes.data_as(kind)  # This keeps the array alive.
