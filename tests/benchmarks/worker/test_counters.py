"""Counters of steps: what is counted, in which threads, and why nothing is."""

import ctypes
import errno
import os
import platform
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from shutil import which
from typing import Any
from unittest.mock import Mock

import pytest

from benchmarks.worker import counters
from benchmarks.worker.counters import Attributes, Counters, CountersError, Event

# Software events take the way of hardware events, and every Linux counts them.
CLOCK, FAULTS, ABSENT = Event(1, 1), Event(1, 2), Event(1, 999)
SOFTWARE = {"nanoseconds": CLOCK, "faults": FAULTS}
WORK = 2e6  # nanoseconds

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def work() -> None:
    """Keep the CPU busy in this thread."""
    end = time.thread_time_ns() + WORK
    while time.thread_time_ns() < end:
        pass


@pytest.fixture
def counted() -> Generator[Counters]:
    try:
        found = Counters(SOFTWARE)
    except CountersError as error:
        if str(counters.PARANOID) not in str(error):
            raise
        pytest.skip(str(error))  # A sandbox forbids it.
    with closing(found):
        yield found


def nanoseconds(found: Counters) -> float:
    return found.read()["nanoseconds"]


@linux
def test_only_what_runs_within_the_block_is_counted(counted: Counters) -> None:
    work()
    assert nanoseconds(counted) == 0
    for times in (1, 2):
        with counted:
            work()
        assert nanoseconds(counted) >= times * WORK
    before = counted.read()
    work()
    assert counted.read() == before


@linux
def test_threads_that_run_already_and_those_started_later_count(counted: Counters) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        with closing(Counters(SOFTWARE)) as found:
            with found:
                pool.submit(work).result()
            first = nanoseconds(found)
            assert first >= WORK
            with found:
                thread = threading.Thread(target=work)
                thread.start()
                thread.join()
            assert nanoseconds(found) >= first + WORK
    assert nanoseconds(counted) == 0


@linux
def test_a_step_counts_on_average_without_what_comes_before_it(counted: Counters) -> None:
    seen = list[int]()

    def before() -> tuple[int]:
        for _ in range(20):
            work()
        return (len(seen),)

    def step(number: int) -> None:
        seen.append(number)
        work()

    found = counters.per_step(step, before, samples=3, repeat=4, events=SOFTWARE)
    assert seen == [0] * 4 + [4] * 4 + [8] * 4
    assert WORK <= found["nanoseconds"] < 2.5 * WORK
    assert list(found) == list(SOFTWARE)


@linux
def test_an_event_that_is_not_offered_is_left_out(counted: Counters) -> None:
    with closing(Counters({"absent": ABSENT, **SOFTWARE})) as found:
        assert found.names == tuple(SOFTWARE)
    with pytest.raises(CountersError, match=counters.NONE_HERE):
        Counters({"absent": ABSENT})


@linux
def test_no_file_stays_open(counted: Counters) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        counters.per_step(int, tuple, 1, 1, SOFTWARE)
    assert len(os.listdir("/proc/self/fd")) == before


def recorded(*values: int) -> bytes:
    return struct.pack(f"={len(values)}Q", *values)


def test_counts_are_scaled_by_the_time_in_which_their_group_counted() -> None:
    # A read returns the number of values, nanoseconds enabled and running, the values.
    assert counters.scaled(recorded(2, 100, 100, 7, 9)) == [7, 9]
    assert counters.scaled(recorded(2, 100, 25, 7, 9)) == [28, 36]
    assert counters.scaled(recorded(1, 0, 0, 0)) == [0]  # A thread that slept.
    with pytest.raises(CountersError, match="in use"):
        counters.scaled(recorded(1, 100, 0, 0))


def test_groups_of_threads_are_scaled_and_then_added(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {3: recorded(2, 100, 50, 10, 1), 5: recorded(2, 80, 80, 4, 2)}

    def read(file: int, size: int) -> bytes:
        return files[file][:size]

    monkeypatch.setattr(os, "read", read)
    found = Counters.__new__(Counters)
    found.names, found.leaders = ("cycles", "misses"), [3, 5]
    assert found.read() == {"cycles": 24, "misses": 4}


# Prints what the header of the kernel says of all that is numbers in counters.py.
HEADER = r"""
#include <linux/perf_event.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

int main(void) {
    struct perf_event_attr attributes = {
        .disabled = 1, .inherit = 1, .exclude_kernel = 1, .exclude_hv = 1,
    };
    unsigned long flags;
    size_t size = offsetof(struct perf_event_attr, read_format) + 8;
    memcpy(&flags, (char *)&attributes + size, 8);
    printf("%d %zu %zu %zu %lu ", PERF_ATTR_SIZE_VER0, offsetof(struct perf_event_attr, config),
           size - 8, size, flags);
    printf("%d %d %d %d ", PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING
           | PERF_FORMAT_GROUP, PERF_EVENT_IOC_ENABLE, PERF_EVENT_IOC_DISABLE,
           PERF_IOC_FLAG_GROUP);
    printf("%d %d %d %d ", PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS,
           PERF_COUNT_HW_CPU_CYCLES, PERF_COUNT_HW_CACHE_MISSES);
    printf("%lu %ld\n", PERF_FLAG_FD_CLOEXEC, (long)SYS_perf_event_open);
}
"""


@pytest.mark.skipif(
    not (which("cc") and Path("/usr/include/linux/perf_event.h").exists()),
    reason="needs cc and the headers of the kernel",
)
def test_the_numbers_are_those_of_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "print.c").write_text(HEADER)
    subprocess.run(["cc", "print.c", "-o", "print"], cwd=tmp_path, check=True)
    printed = subprocess.check_output([tmp_path / "print"], text=True).split()
    flags = counters.DISABLED | counters.INHERIT
    flags |= counters.EXCLUDE_KERNEL | counters.EXCLUDE_HYPERVISOR
    fields = [getattr(Attributes, name).offset for name in ("config", "read_format", "flags")]
    events = counters.HARDWARE
    configs = [events[name].config for name in ("instructions", "cycles", "misses")]
    assert [*map(int, printed)] == [
        ctypes.sizeof(Attributes), *fields, flags, counters.READ_FORMAT, counters.ENABLE,
        counters.DISABLE, counters.GROUP, *{event.type for event in events.values()}, *configs,
        counters.CLOSE_ON_EXEC, counters.SYSCALLS[platform.machine()],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "level", "said"),
    [
        (errno.ENOENT, "2", "this processor or virtual machine offers none"),
        (errno.EACCES, "3", "paranoid is 3, must be at most 2; a container may forbid them too"),
        (errno.EPERM, None, "paranoid is missing, must be at most 2"),
        (errno.ENOSYS, None, "they need Linux on x86-64 or 64-bit Arm"),
        (errno.EMFILE, None, "perf_event_open failed: Too many open files"),
    ],
)
def test_the_reason_for_no_counters_is_told_in_one_line(
    code: int, level: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paranoid = tmp_path / "perf_event_paranoid"
    if level is not None:
        paranoid.write_text(level + "\n")
    monkeypatch.setattr(counters, "PARANOID", paranoid)
    monkeypatch.setattr(counters, "open_event", Mock(side_effect=OSError(code, "")))
    found = counters.why_none()
    assert found is not None
    assert said in found
    assert "\n" not in found


@pytest.mark.parametrize(("system", "machine"), [("darwin", "arm64"), ("linux", "riscv64")])
def test_without_the_call_there_are_none(
    system: str, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    library: Any = Mock(side_effect=AssertionError("called"))
    monkeypatch.setattr(counters, "library", library)
    assert counters.why_none() == counters.REASONS[errno.ENOSYS]
