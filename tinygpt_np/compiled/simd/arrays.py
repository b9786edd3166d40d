"""What a kernel is given: arrays brought to the one layout and dtype that it is compiled for."""

import numpy as np


def floats(array: np.ndarray, name: str) -> np.ndarray:
    """The array if it is C-contiguous and writeable, else a copy that is.

    A read-only array is another type to Numba, for which every kernel would be compiled again.
    Raises TypeError, with the name, unless the array is float32.
    """
    flags = array.flags
    if array.dtype == np.float32 and flags.c_contiguous and flags.writeable and flags.aligned:
        return array  # As np.require would find, in a tenth of the time.
    if array.dtype != np.float32:
        raise TypeError(f"{name} must be an array of float32, not {array.dtype}")
    return np.require(array, requirements=("C", "W", "A"))


def integers(array: np.ndarray, name: str) -> np.ndarray:
    """Like floats, for an array of any integers, as int64."""
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be an array of integers, not {array.dtype}")
    return np.require(array, np.int64, requirements=("C", "W", "A"))
