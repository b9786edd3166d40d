"""Dropout, compiled. The derivation is in ops/dropout.py.

Whether element i of a mask is kept is a hash of (key, i) alone, so a mask may be filled in any
number of parts, in any order. Each 32 bits of the index and of the mixed key go through two rounds
of a 32-bit finalizer (multiply, fold the high half down), with the constants of Wellons's
"lowbias32"; the key is mixed beforehand by the finalizer of SplitMix64 (Steele, Lea, Flood 2014).
"""

from typing import Any

import numpy as np

from tinygpt_np.compiled.cache import kernel
from tinygpt_np.compiled.simd.arrays import floats

ZERO = np.float32(0)
LOW_HALF = np.uint64(0xFFFFFFFF)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
WIDE_1, WIDE_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
NARROW_1, NARROW_2 = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)
S15, S16 = np.uint32(15), np.uint32(16)
W27, W30, W31, W32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)


@kernel
def mix64(bits: Any) -> Any:
    """Return a one-to-one hash of 64 bits."""
    bits += GOLDEN
    bits = (bits ^ (bits >> W30)) * WIDE_1
    bits = (bits ^ (bits >> W27)) * WIDE_2
    return bits ^ (bits >> W31)


@kernel
def mix32(bits: Any) -> Any:
    """Return a one-to-one hash of 32 bits. The casts undo Numba's widening."""
    bits = np.uint32(np.uint32(bits ^ (bits >> S16)) * NARROW_1)
    bits = np.uint32(np.uint32(bits ^ (bits >> S15)) * NARROW_2)
    return np.uint32(bits ^ (bits >> S16))


@kernel
def fill_mask(mask: Any, p: Any, key: Any, start: Any) -> None:
    """Write 0 with probability p in [0, 1), else 1/(1 - p), to a flat part of a mask.

    The part begins at element `start`; key is 64 bits. Filling in parts equals filling at once.
    """
    kept = np.float32(1 / (1 - p))
    threshold = np.uint32(min(p * 2.0**32, 2.0**32 - 1))
    done = 0
    while done < mask.size:
        place = np.uint64(start) + np.uint64(done)
        low = place & LOW_HALF
        # Until the low half of the index overflows, its high half is part of the key.
        size = min(mask.size - done, np.int64(LOW_HALF - low) + 1)
        mixed = mix64(mix64(np.uint64(key)) ^ (place >> W32))
        first, second = np.uint32(mixed), np.uint32(mixed >> W32)
        counter = np.uint32(low)
        part = mask[done : done + size]
        for i in range(size):
            bits = mix32(np.uint32(np.uint32(counter + np.uint32(i)) ^ first))
            bits = mix32(np.uint32(bits ^ second))
            part[i] = ZERO if bits < threshold else kept
        done += size


@kernel
def fill_part(mask: Any, p: Any, draw: Any, number: Any, size: Any) -> None:
    """Fill a flat part of one of the masks of a step, each of which has a key of its own.

    draw (2,) uint64: the step's key and the first sequence of the part. `number` is that of the
    mask, of which a sequence has `size` elements.
    """
    key = draw[0] + np.uint64(number) * GOLDEN
    fill_mask(mask, p, key, draw[1] * np.uint64(size))


@kernel
def forward_values(x: Any, mask: Any, y: Any) -> None:
    """y = x · mask, all flat."""
    for i in range(x.size):
        y[i] = x[i] * mask[i]


@kernel
def add_masked(x: Any, branch: Any, mask: Any, y: Any) -> None:
    """y = x + branch · mask, all flat."""
    for i in range(x.size):
        y[i] = x[i] + branch[i] * mask[i]


def draw_mask(
    shape: tuple[int, ...], p: float, rng: np.random.Generator, dtype: np.dtype[Any]
) -> np.ndarray:
    """Return a mask (shape) of zeros, with probability p in [0, 1), and 1/(1 - p)."""
    if dtype != np.float32:
        raise TypeError(f"dropout.draw_mask: dtype must be float32, not {dtype}")
    mask = np.empty(shape, np.float32)  # (...)
    key = rng.integers(2**64, dtype=np.uint64)
    fill_mask(mask.reshape(-1), float(p), key, 0)
    return mask


def forward(x: np.ndarray, mask: np.ndarray | None = None) -> tuple[np.ndarray, tuple[Any, ...]]:
    """x (...), mask (...) or None -> y (...), saved."""
    if mask is not None:
        mask = floats(mask, "dropout.forward: mask")  # (...)
    return masked(floats(x, "dropout.forward: x"), mask), (mask,)


def backward(dy: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    """dy (...) -> dx (...)."""
    (mask,) = saved
    return masked(floats(dy, "dropout.backward: dy"), mask)


def masked(x: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Return x · mask, or a copy of x without a mask."""
    if mask is None:
        return x.copy()
    y = np.empty_like(x)  # (...)
    forward_values(x.reshape(-1), mask.reshape(-1), y.reshape(-1))
    return y
