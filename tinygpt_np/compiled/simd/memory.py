"""Memory for kernels: arrays from large pieces, scratch buffers per thread, matrices by address.

Linux backs a piece of 4 MiB or more with huge pages of 2 MiB (NumPy asks for them), so that walking
down the rows of a matrix causes few TLB misses; see compiled/README.md for the gain.
"""

import math
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# Bytes of a piece.
PIECE = 8 << 20
# A cache line in numbers; each array begins on one, so that no vector crosses two.
LINE = 16


class Matrix(NamedTuple):
    """A float32 matrix in memory: its address, and the bytes from one row to the next."""

    address: int
    stride: int


class Arena:
    """Allocates float32 arrays of zeros from pieces, each of which lives as long as its arrays."""

    def __init__(self) -> None:
        self.piece = np.zeros(0, np.float32)

    def zeros(self, *shape: int) -> np.ndarray:
        """Return an array of zeros."""
        count = math.prod(shape)
        lines = count + -count % LINE
        if lines > self.piece.size:
            size = max(lines + LINE, PIECE // 4)
            self.piece = np.zeros(size, np.float32)
            self.piece = self.piece[-(self.piece.ctypes.data // 4) % LINE :]
        array, self.piece = self.piece[:count], self.piece[lines:]
        return array.reshape(shape)


class Workspace(threading.local):
    """Scratch buffers that a thread keeps between calls: the latest of each function's."""

    def __init__(self) -> None:
        self.buffers: dict[Callable[..., Any], tuple[tuple[int, ...], Any]] = {}

    def get(self, make: Callable[..., Any], *sizes: int) -> Any:
        """Return make(arena, *sizes), or the buffers that it last returned for these sizes."""
        key, value = self.buffers.get(make, (None, None))
        if key != sizes:
            value = make(Arena(), *sizes)
            self.buffers[make] = sizes, value
        return value


workspace = Workspace()
