"""Chooses the implementation of the operations, once, by name."""

from types import ModuleType

from tinygpt_np import ops

BACKENDS: dict[str, ModuleType] = {"numpy": ops}


def load(name: str) -> ModuleType:
    """The module that holds the operations. Raises ValueError for a name it does not know."""
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {name!r}")
    return BACKENDS[name]
