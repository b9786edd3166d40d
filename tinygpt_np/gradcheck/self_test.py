"""What this machine is, and whether the compiled kernels are right on it.

Every operation of every backend but NumPy's is held against ops/ in float64, at two sizes: one
smaller than a vector and one that fills a few and leaves a rest. Both compute from the same float32
numbers, so what they differ by is the rounding of float32 on the way.
"""

import math
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from types import ModuleType
from typing import Any, cast

import llvmlite.binding as llvm  # pyright: ignore[reportMissingTypeStubs]
import numba
import numpy as np
import threadpoolctl  # pyright: ignore[reportMissingTypeStubs]

from tinygpt_np import backend as backends
from tinygpt_np import machine, ops
from tinygpt_np.compiled import cache as compiling
from tinygpt_np.config import counted, generator
from tinygpt_np.gradcheck.cases import VARIANTS, Case, case

# Of a tensor's norm. A right kernel is off by a few times the rounding of float32, 6e-8.
BOUND = 1e-5
LARGE = {"B": 2, "T": 37, "H": 3, "D": 24, "N": 70, "C": 136, "K": 150, "V": 83}


@dataclass(frozen=True)
class Found:
    """An operation of a backend. error: the largest of its tensors', as a share of their norm.

    problem: what stopped it, if anything did; then error is NaN.
    """

    operation: str
    error: float
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem and self.error <= BOUND


def compiled_backends() -> list[str]:
    return [name for name in backends.BACKENDS if name != "numpy"]


def self_test(backend: str, announce: Callable[[str], None]) -> list[Found]:
    """What is found of each operation. announce: called with what is about to be compiled."""
    with compiling.watch(announce):
        return [test(backend, operation) for operation in ops.__all__]


def test(backend: str, operation: str) -> Found:
    """An operation, in all its variants and at both sizes."""
    try:
        module = getattr(backends.load(backend), operation)
        errors = [
            error
            for name, variant in VARIANTS.items()
            if variant.operation == operation
            for sizes in ({}, {letter: LARGE[letter] for letter in variant.letters})
            for error in errors_of(module, case(name, sizes=sizes))
        ]
    except Exception as error:  # Whatever it is, the other operations are to be tested too.
        return Found(operation, math.nan, f"{type(error).__name__}: {error}")
    return Found(operation, float(np.max(errors)))  # NaN if one of them is.


def errors_of(module: ModuleType, given: Case) -> Iterator[float]:
    """How far the output and each gradient are from those of ops/, as a share of their norm."""
    single = given.as_dtype("float32")
    double = {name: array.astype("float64") for name, array in single.items()}
    truth = given.module
    output: np.ndarray = truth.forward(**{**given.args, **double})[0]
    doutput = generator(given.seed, "gradcheck").standard_normal(output.shape, np.float32)
    expected = tensors(truth, {**given.args, **double}, doutput.astype("float64"))
    found = tensors(module, {**given.args, **single}, doutput)
    for exact, approximate in zip(expected, found, strict=True):
        if approximate.shape != exact.shape or approximate.dtype != np.float32:
            raise ValueError(
                f"float32 of shape {exact.shape} is wanted, not "
                f"{approximate.dtype} of shape {approximate.shape}"
            )
        yield float(np.linalg.norm(approximate - exact) / np.linalg.norm(exact))


def tensors(module: ModuleType, args: dict[str, Any], doutput: np.ndarray) -> list[np.ndarray]:
    """The output of an operation, and its gradients."""
    output, saved = module.forward(**args)
    returned = module.backward(doutput, saved)
    parts = cast(tuple[Any, ...], returned if isinstance(returned, tuple) else (returned,))
    return [np.asarray(part) for part in (output, *parts) if part is not None]


def facts() -> Iterator[tuple[str, str]]:
    """The machine and what computes on it: names, and texts."""
    name, features = cast(Any, llvm).get_host_cpu_name(), cast(Any, llvm).get_host_cpu_features()
    yield "processor", f"{machine.processor_name()} ({name})"
    yield "vectors", f"{machine.vector_bits(features)} bits"
    yield "cores", cores()
    yield "memory", memory()
    yield from (("BLAS", library) for library in blas())
    yield "Numba", f"{version('numba')}, threads: {cast(Any, numba).get_num_threads()}"
    yield "llvmlite", version("llvmlite")
    yield "NumPy", np.__version__
    yield "Python", f"{platform.python_version()} on {platform.platform()}"
    yield "tinygpt-np", version("tinygpt-np")
    cache = compiling.cache_state()
    use = f"{counted(cache.kernels, 'kernel')}, {cache.bytes / 1e6:.1f} MB"
    yield "cache", use if cache.writable else f"{use}, and CANNOT BE WRITTEN"
    yield "", str(cache.folder)


def cores() -> str:
    """Return how many cores are used, and the CPU quota if there is one."""
    quota = machine.cpu_quota()
    limit = "" if quota == math.inf else f", limited to the time of {quota:g} by a control group"
    return f"{machine.usable_cores()} usable of {os.cpu_count()}{limit}"


def memory() -> str:
    """Return how much memory there is, and the limit of the control group if there is one."""
    available, most = machine.available_memory(), machine.memory_limit()
    limit = "" if most == math.inf else f", limited to {most / 1e6:,.0f} MB by a control group"
    return "unknown" if available == math.inf else f"{available / 1e6:,.0f} MB available{limit}"


def blas() -> list[str]:
    """The libraries behind matrix products, with their threads where they can be asked."""
    pools: list[dict[str, Any]] = cast(Any, threadpoolctl).threadpool_info()
    found = [
        f"{pool['internal_api']} {pool['version']}, threads: {pool['num_threads']}"
        for pool in pools
        if pool["user_api"] == "blas"
    ]
    built: Any = np.show_config(mode="dicts")
    return found or [f"{built['Build Dependencies']['blas']['name']}, threads: unknown"]
