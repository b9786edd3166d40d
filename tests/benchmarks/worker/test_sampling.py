"""Samples of where a step spends its time."""

import ctypes
import errno
import os
import struct
import sys
import time
from typing import Any
from unittest.mock import Mock

import pytest

from benchmarks.worker import counters, sampling
from benchmarks.worker.counters import CountersError


def busy() -> None:
    end = time.thread_time_ns() + 1e6
    while time.thread_time_ns() < end:
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_a_step_is_found_where_it_spends_its_time() -> None:
    seen, files = list[int](), len(os.listdir("/proc/self/fd"))

    def step(number: int) -> None:
        seen.append(number)
        busy()

    try:
        found = sampling.addresses(step, lambda: (len(seen),), 2, 0.05)
    except CountersError as error:
        if str(counters.PARANOID) not in str(error):
            raise
        pytest.skip(str(error))  # A sandbox forbids it.
    assert seen[:4] == [0, 0, 2, 2]
    # A sample is taken every PERIOD of CPU time, or less often on a busy machine.
    assert 0 < len(found) < 2 * len(seen) * 1e6 / sampling.PERIOD
    start = ctypes.cast(ctypes.pythonapi.PyLong_FromLong, ctypes.c_void_p).value or 0
    near = [address for address in found if abs(address - start) < 1 << 26]
    assert near  # in the interpreter
    assert len(os.listdir("/proc/self/fd")) == files


def record(kind: int, address: int, size: int = 16) -> bytes:
    return struct.pack("=IHHQ", kind, 2, size, address) + bytes(size - 16)


def test_records_of_other_kinds_and_an_incomplete_one_are_passed_over() -> None:
    records = record(9, 0x10) + record(2, 0x99, 24) + record(9, 0x7F0123456789)
    assert sampling.addresses_in(records + record(9, 0x20)[:12]) == [0x10, 0x7F0123456789]
    assert sampling.addresses_in(records + bytes(64)) == [0x10, 0x7F0123456789]  # not written
    assert sampling.addresses_in(b"") == []


@pytest.mark.parametrize("place", ["benchmarks.worker.counters.open_event", "mmap.mmap"])
def test_why_nothing_is_sampled_is_told(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = os.open(os.devnull, os.O_RDONLY)
    opened: Any = Mock(return_value=file)
    monkeypatch.setattr(counters, "open_event", opened)
    monkeypatch.setattr(place, Mock(side_effect=OSError(errno.EMFILE, "")))
    with pytest.raises(CountersError, match="Too many open files"):
        sampling.addresses(busy, tuple, 1, 0.01)
    if place == "mmap.mmap":
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.close(file)  # It was closed.
