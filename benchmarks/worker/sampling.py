"""Sample where a step spends its time: the addresses of instructions, by Linux's perf_event_open.

The samples are taken by a clock of the kernel, which virtual machines have too, in user mode and
in this thread.
"""

import mmap
import os
import struct
import time
from collections.abc import Callable
from typing import Any

from benchmarks.worker import counters
from benchmarks.worker.counters import ALONE, DISABLE, ENABLE, THIS_THREAD, CountersError, Event

CLOCK = Event(1, 0)  # the CPU time of the thread
PERIOD = 50_000  # nanoseconds between samples
PAGES = 32  # of the buffer of samples, which takes half a second to fill
ADDRESS = 1 << 0  # sample_type: a sample is the address of an instruction
SAMPLE = 9  # the type of such a record
HEAD = 1024  # where the first page says how much was written


def addresses(
    step: Callable[..., Any], before: Callable[[], tuple[Any, ...]], repeat: int, seconds: float
) -> list[int]:
    """Return the addresses at which steps were found, after taking them for some seconds.

    before: called before `repeat` steps, not sampled; returns their arguments.

    Raises CountersError if that is not possible.
    """
    try:
        file = counters.open_event(
            CLOCK, THIS_THREAD, ALONE, flags=0, sample_period=PERIOD, sample_type=ADDRESS
        )
    except OSError as error:
        raise CountersError(counters.reason(error.errno or 0)) from None
    try:
        with mmap.mmap(file, mmap.PAGESIZE * (1 + PAGES)) as buffer:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                arguments = before()
                counters.library().ioctl(file, ENABLE, 0)
                for _ in range(repeat):
                    step(*arguments)
                counters.library().ioctl(file, DISABLE, 0)
            (written,) = struct.unpack_from("=Q", buffer, HEAD)
            return addresses_in(buffer[mmap.PAGESIZE :][:written])
    except OSError as error:  # Memory for the buffer may be limited.
        raise CountersError(counters.reason(error.errno or 0)) from None
    finally:
        os.close(file)


def addresses_in(records: bytes) -> list[int]:
    """Return the addresses in records, each of which starts with its type and size."""
    found: list[int] = []
    place = 0
    while place + 16 <= len(records):
        kind, _, size = struct.unpack_from("=IHH", records, place)
        if kind == SAMPLE:
            found += struct.unpack_from("=Q", records, place + 8)
        if size == 0:
            break
        place += size
    return found
