"""A kernel of a user as a rung, in a worker process, where all that its file does happens."""

import ctypes
import functools
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # pyright: ignore[reportMissingTypeStubs]

from benchmarks import cases
from benchmarks.ladders import Call, Rung, Runner, compiled_only, contiguous, write
from benchmarks.mine.signature import NUMBERS, SAVED, THREADS
from benchmarks.mine.source import Function, Kernel

Values = dict[str, Any]


def load(kernel: Kernel) -> Rung:
    """Return a kernel as a rung of the ladder of its operation."""
    source: Any = module(Path(kernel.path))
    in_c = bool(kernel.function.types)
    outputs = cases.module(kernel.operation).DIRECTIONS[kernel.direction].outputs
    returns = not {*outputs} <= {*kernel.function.takes}

    def prepare(call: Call) -> Callable[[], Any]:
        values = {**call.arrays, **NUMBERS.get(kernel.operation, {}), **call.sizes}
        values[THREADS] = call.threads
        # OpenMP, or another BLAS, may have been loaded with the kernel.
        threadpool_limits(call.threads)
        bind = functools.partial(bound, source, kernel.function)
        if kernel.save is None:
            step = bind(values)
        else:
            save = bound(source, kernel.save, values, ctypes.c_void_p)
            step = (with_pointer if in_c else with_result)(call, save, bind, values)
        arrays = [*call.outputs.values()]
        # The copy is timed; untimed, it could compute what was returned.
        return (lambda: write(arrays, step())) if returns else step

    compiled = compiled_only(getattr(source, kernel.function.name))
    runners = {kernel.direction: Runner(prepare, compiled)}
    threads = "any" if kernel.parallel else "one"
    return Rung(kernel.name, "", contiguous(runners) if in_c else runners, threads)


def with_result(
    call: Call, save: Callable[[], Any], bind: Callable[[Values], Any], values: Values
) -> Callable[[], Any]:
    """Return a step whose last argument is what was saved."""
    saved: list[Any] = []

    def keep() -> None:
        saved[:] = [save()]

    call.saves.append(keep)
    step = bind(values)
    return lambda: step(*saved)


def with_pointer(
    call: Call, save: Callable[[], Any], bind: Callable[[Values], Any], values: Values
) -> Callable[[], Any]:
    """Return a step that takes a pointer to memory by malloc, which is freed when it changes."""
    saved = ctypes.c_void_p()
    free = ctypes.CDLL(None).free

    def keep() -> None:
        free(saved)
        saved.value = save()

    call.saves.append(keep)
    return bind({**values, SAVED: saved})


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
    arguments = [values[name] for name in function.takes if name in values]
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
    if isinstance(value, np.ndarray):
        return value.ctypes.data_as(kind)  # This keeps the array alive.
    return value if isinstance(value, kind) else kind(value)
