"""Choose between the operations of ops/ and compiled code, by name.

Compiled code is imported on first use, because importing it loads a compiler.
"""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from tinygpt_np.config import GPTConfig
from tinygpt_np.storage.parameters import Tensors

# The modules of operations, by backend name.
BACKENDS = {"numpy": "tinygpt_np.ops", "numba": "tinygpt_np.compiled.kernels"}


def load(name: str) -> ModuleType:
    """Return the module of operations with this name. Raise ValueError for an unknown name."""
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {name!r}")
    return importlib.import_module(BACKENDS[name])


def name_of(operations: Any) -> str:
    """Return the backend name of a module of operations, or "other operations"."""
    module = getattr(operations, "__name__", "")
    return next((name for name in BACKENDS if BACKENDS[name] == module), "other operations")


def reference_of(operations: Any) -> Any:
    """Return the operations that a module is checked against: ops/ for a backend, else itself."""
    return load("numpy") if name_of(operations) in BACKENDS else operations


def decoder(config: GPTConfig, params: Tensors, batch: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return the `read` method of a compiled decoder for `batch` sequences."""
    from tinygpt_np.compiled.decoder import CompiledDecoder

    return CompiledDecoder(config, params, batch).read


def engine() -> Any:
    """Return the module compiled/engine.py, which defines CompiledEngine."""
    from tinygpt_np.compiled import engine

    return engine
