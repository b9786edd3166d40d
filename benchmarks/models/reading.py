"""A kernel that reads memory as fast as possible."""

from typing import Any

import numpy as np

from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.simd.vectors import LANES, all_lanes, load_vector, store_vector


@strict
def add_all(values: Any, total: Any) -> None:
    """Add values (M,), M a multiple of 4·LANES, lane by lane to total (LANES,)."""
    address, end, step = values.ctypes.data, values.ctypes.data + 4 * values.size, 4 * LANES
    a = b = c = d = all_lanes(np.float32(0))
    while address < end:
        a = a + load_vector(address)
        b = b + load_vector(address + step)
        c = c + load_vector(address + 2 * step)
        d = d + load_vector(address + 3 * step)
        address += 4 * step
    store_vector(total.ctypes.data, (a + b) + (c + d))
