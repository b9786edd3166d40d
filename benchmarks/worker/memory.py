"""The memory of an array: between guards, in the layout of training or in that of a trial."""

import math
from typing import Any, NamedTuple

import numpy as np

LINE = 64  # bytes of a cache line
# Bytes before and behind an array, and the value that these and the gaps between rows are filled
# with.
GUARD, PATTERN = 1 << 14, 0xA5


class Layout(NamedTuple):
    """A layout of arrays. needs: what a kernel needs that refuses this layout.

    shift: elements between the beginning of a cache line and the first element. gap: elements
    between two rows; in an array of one axis, between two elements.
    """

    needs: str
    shift: int = 0
    gap: int = 0


# As in training, and two that kernels may refuse.
TRAINING = Layout("nothing")
MISALIGNED, STRIDED = Layout("aligned", shift=1), Layout("contiguous", gap=3)


class Guarded:
    """An array in memory of its own, with guards around it; at first it holds garbage."""

    def __init__(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], layout: Layout = TRAINING
    ) -> None:
        *rows, row = shape if len(shape) > 1 else (*shape, 1)
        held = row + layout.gap
        size, item = math.prod(rows) * held * dtype.itemsize, dtype.itemsize
        memory = np.full(size + 2 * GUARD + 2 * LINE, PATTERN, np.uint8)
        start = GUARD + -(memory.ctypes.data + GUARD) % LINE + layout.shift * item
        body = memory[start : start + size].reshape(*rows, held * item)
        self.array: np.ndarray = body.view(dtype)[..., :row].reshape(shape)
        self.outside = {
            "before": memory[:start],
            "behind": memory[start + size :],
            "between the rows of": body[..., row * item :],
        }
        self.spoil()

    def spoil(self) -> None:
        """Fill the array with garbage: NaN, or -1 if it is of integers."""
        self.array.fill(np.nan if self.array.dtype.kind == "f" else -1)

    def damage(self, name: str) -> str | None:
        """Return where memory around the array of this name was written to, or None."""
        for where, memory in self.outside.items():
            places = np.flatnonzero(memory != PATTERN)
            if places.size:
                nearest = places[0] if where != "before" else memory.size - 1 - places[-1]
                found = f"{places.size} bytes, the nearest {nearest} bytes away"
                return f"memory {where} {name} was written to: {found}"
        return None
