"""How much of a compiled kernel's arithmetic is done by vectors."""

from typing import Any


def packed_share(compiled: tuple[Any, ...]) -> float | None:
    """Of the floating-point instructions of these functions, the share that works on vectors."""
    return None
