"""The chain of multiply-adds that matmuls promise, and arrays between guard zones."""

import numpy as np

from tinygpt_np.compiled.simd.vectors import FUSED

# Numbers before and after a guarded array.
ZONE = 128


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a·b + c of float32, rounded once.

    The product is exact in float64. The sum is rounded to odd there (to the neighbour with an odd
    last bit, unless it is exact), so that rounding it again to float32 is as rounding it once
    (Boldo, Melquiond 2008).
    """
    with np.errstate(all="ignore"):
        product, c = a.astype(np.float64) * b, c.astype(np.float64)
        total = product + c
        part = total - product
        missing = (product - (total - part)) + (c - part)
        even = total.view(np.int64) & 1 == 0
        inexact = np.isfinite(total) & (missing != 0) & even
        odd = np.nextafter(total, np.copysign(np.inf, missing))
        return np.where(inexact, odd, total).astype(np.float32)


def chain(a: np.ndarray, b: np.ndarray, start: np.ndarray, fused: bool = FUSED) -> np.ndarray:
    """Return start + a·b, (M, N), each sum one chain in the order of the depth, as in kernels."""
    c = np.broadcast_to(start, (len(a), b.shape[1]))
    for column, row in zip(a.T[:, :, None], b[:, None, :], strict=True):
        if fused:
            c = fma(column, row, c)
        else:
            with np.errstate(all="ignore"):
                c = column * row + c
    return c.copy()


class Guarded:
    """An array between two zones of one number, which show whether they were written to."""

    def __init__(self, values: np.ndarray, zone: float) -> None:
        count = values.size
        self.memory = np.full(count + 2 * ZONE, zone, np.float32)
        self.array = self.memory[ZONE : ZONE + count].reshape(values.shape)
        self.array[...] = values
        self.values, self.zone = self.array.copy(), np.float32(zone)

    def surroundings_are_intact(self) -> bool:
        zones = np.concatenate([self.memory[:ZONE], self.memory[-ZONE:]])
        return np.array_equal(zones, np.full(2 * ZONE, self.zone), equal_nan=True)

    def is_intact(self) -> bool:
        same = np.array_equal(self.array, self.values, equal_nan=True)
        return same and self.surroundings_are_intact()
