"""Convert arrays to the layout and dtype that kernels are compiled for."""

import numpy as np


def floats(array: np.ndarray, name: str) -> np.ndarray:
    """Return the array if it is C-contiguous and writeable, else a copy that is.

    Numba would compile every kernel again for read-only arrays. Raises TypeError, with the name,
    unless the array is float32.
    """
    flags = array.flags
    if array.dtype == np.float32 and flags.c_contiguous and flags.writeable and flags.aligned:
        return array  # Ten times faster than np.require.
    if array.dtype != np.float32:
        raise TypeError(f"{name} must be an array of float32, not {array.dtype}")
    return np.require(array, requirements=("C", "W", "A"))


def integers(array: np.ndarray, name: str) -> np.ndarray:
    """Return an array of any integers as floats() does, as int64."""
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be an array of integers, not {array.dtype}")
    return np.require(array, np.int64, requirements=("C", "W", "A"))
