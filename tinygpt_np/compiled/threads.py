"""How many threads compute: one setting for the BLAS behind NumPy and for Numba."""

import contextlib
import sys
from collections.abc import Generator
from typing import Any

from threadpoolctl import threadpool_limits  # pyright: ignore[reportMissingTypeStubs]

from tinygpt_np.machine import MOST_THREADS


@contextlib.contextmanager
def limited(threads: int) -> Generator[None]:
    """So many threads inside, and as many as before afterwards.

    Numba's are set if it is imported by then, for the calling thread, and never to more than it
    has, which is NUMBA_NUM_THREADS. Raises TypeError unless threads is an int, and ValueError
    unless it is 1 or more.
    """
    check_threads(threads)
    with threadpool_limits(threads, user_api="blas"), numba_limited(threads):
        yield


def check_threads(threads: int) -> None:
    if not isinstance(threads, int) or isinstance(threads, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"threads must be a positive integer, not {type(threads).__name__}")
    if threads < 1:
        raise ValueError(f"threads must be a positive integer, not {threads}")
    if threads > MOST_THREADS:
        raise ValueError(f"threads must be at most {MOST_THREADS}, not {threads}")


@contextlib.contextmanager
def numba_limited(threads: int) -> Generator[None]:
    numba: Any = sys.modules.get("numba")
    if numba is None:
        yield
        return
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        numba.set_num_threads(before)
