"""Chooses the implementation of the operations, once, by name."""

import importlib
from types import ModuleType
from typing import Any

# The modules; kernels is imported only where it is asked for, for it brings a compiler with it.
BACKENDS = {"numpy": "tinygpt_np.ops", "numba": "tinygpt_np.kernels"}


def load(name: str) -> ModuleType:
    """The module that holds the operations. Raises ValueError for a name it does not know."""
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {name!r}")
    return importlib.import_module(BACKENDS[name])


def name_of(operations: Any) -> str:
    """Return the name of the backend that a module of operations is, or that it is none."""
    module = getattr(operations, "__name__", "")
    return next((name for name in BACKENDS if BACKENDS[name] == module), "other operations")


def is_compiled(operations: Any) -> bool:
    """Return whether a module of operations is a backend other than ops/."""
    return name_of(operations) not in ("numpy", "other operations")


def truth_of(operations: Any) -> Any:
    """What a module of operations is held against: ops/ for a backend, any other is its own."""
    return load("numpy") if is_compiled(operations) else operations
