"""Hardware counters by Linux's perf_event_open: instructions, cycles and cache misses of a step.

Counted is what the threads of this process do in user mode, which the usual setting of
perf_event_paranoid allows. The events of a thread are a group, so that all count at the same
time. If the processor has too few counters for all that is counted, the kernel lets groups take
turns; a count is then scaled by the fraction of the time in which its group counted.

A cache miss is what the kernel takes for one: on Intel one of the last level, with prefetches to L1
and L2; on AMD one of L2, without prefetches; on Arm one of L1.
"""

import ctypes
import errno
import functools
import os
import platform
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

SYSCALLS = {"x86_64": 298, "aarch64": 241}  # perf_event_open by machine
PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
THREADS = Path("/proc/self/task")
# Bits of perf_event_attr. inherit: threads started later count too.
DISABLED, INHERIT, EXCLUDE_KERNEL, EXCLUDE_HYPERVISOR = 1 << 0, 1 << 1, 1 << 5, 1 << 6
# read_format: the times enabled and running, and all values of a group.
READ_FORMAT = 1 << 0 | 1 << 1 | 1 << 3
# ioctl requests; the argument says that they are for all of a group.
ENABLE, DISABLE, GROUP = 0x2400, 0x2401, 1
CLOSE_ON_EXEC = 1 << 3
# Arguments of perf_event_open: the calling thread, any CPU, no group yet.
THIS_THREAD, ANY_CPU, ALONE = 0, -1, -1
NONE_HERE = "this processor or virtual machine offers none"
REASONS = {
    errno.ENOENT: NONE_HERE,
    errno.EOPNOTSUPP: NONE_HERE,
    errno.ENOSYS: "they need Linux on x86-64 or 64-bit Arm",
}


class CountersError(Exception):
    """Raised when nothing can be counted; says why."""


class Event(NamedTuple):
    """An event by its numbers in linux/perf_event.h."""

    type: int
    config: int


HARDWARE = {"instructions": Event(0, 1), "cycles": Event(0, 0), "misses": Event(0, 3)}


class Attributes(ctypes.Structure):
    """The first version of perf_event_attr, which all kernels know."""

    _fields_ = [
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("wakeup_events", ctypes.c_uint32),
        ("bp_type", ctypes.c_uint32),
        ("config1", ctypes.c_uint64),
    ]


class Counters:
    """Counters of the threads that this process has now and of those that they start.

    They count within ``with counters:``, which may be entered many times. Raises CountersError.
    """

    def __init__(self, events: Mapping[str, Event]) -> None:
        offered = offered_of(events)
        self.names, self.leaders, self.opened = tuple(offered), list[int](), ExitStack()
        for thread in THREADS.iterdir():
            with suppress(ProcessLookupError):  # It has ended.
                self.leaders.append(self.group(offered.values(), int(thread.name)))

    def group(self, events: Iterable[Event], thread: int) -> int:
        """Open the counters of a thread, and return the file of the first."""
        leader = ALONE
        for event in events:
            file = open_event(event, thread, leader)
            self.opened.callback(os.close, file)
            leader = file if leader == ALONE else leader
        return leader

    def __enter__(self) -> None:
        for leader in self.leaders:
            library().ioctl(leader, ENABLE, GROUP)

    def __exit__(self, *_: object) -> None:
        for leader in self.leaders:
            library().ioctl(leader, DISABLE, GROUP)

    def read(self) -> dict[str, float]:
        """Return what was counted so far in all threads, by name."""
        size = 8 * (3 + len(self.names))
        groups = [scaled(os.read(leader, size)) for leader in self.leaders]
        return dict(zip(self.names, map(sum, zip(*groups, strict=True)), strict=True))

    def close(self) -> None:
        """Close the counters."""
        self.opened.close()


def per_step(
    step: Callable[..., Any], before: Callable[[], tuple[Any, ...]], samples: int, repeat: int,
    events: Mapping[str, Event],
) -> dict[str, float]:  # fmt: skip
    """Return what a step counts on average over samples of `repeat` steps.

    before: called before each sample, not counted; returns the arguments of the step.
    """
    with closing(Counters(events)) as counters:
        for _ in range(samples):
            arguments = before()
            with counters:
                for _ in range(repeat):
                    step(*arguments)
        return {name: value / (samples * repeat) for name, value in counters.read().items()}


def offered_of(events: Mapping[str, Event]) -> dict[str, Event]:
    """Return the events that can be counted here. Raises CountersError if there is none."""
    found, code = dict[str, Event](), errno.ENOSYS
    for name, event in events.items():
        try:
            os.close(open_event(event, THIS_THREAD, ALONE))
            found[name] = event
        except OSError as error:
            code = error.errno or code
    if not found:
        raise CountersError(reason(code))
    return found


def open_event(
    event: Event, thread: int, leader: int, flags: int = INHERIT, **sampling: int
) -> int:
    """Return the file of a counter of a thread, in the group of a leader or, with ALONE, as leader.

    sampling: further fields of the attributes. Raises OSError if that is not possible.
    """
    number = SYSCALLS.get(platform.machine()) if sys.platform == "linux" else None
    if number is None:
        raise OSError(errno.ENOSYS, "no perf_event_open")
    attributes = Attributes(
        type=event.type,
        size=ctypes.sizeof(Attributes),
        config=event.config,
        read_format=READ_FORMAT,
        flags=flags | EXCLUDE_KERNEL | EXCLUDE_HYPERVISOR | (leader == ALONE and DISABLED),
        **sampling,
    )
    address = ctypes.addressof(attributes)
    file = library().syscall(number, address, thread, ANY_CPU, leader, CLOSE_ON_EXEC)
    if file < 0:
        raise OSError(ctypes.get_errno(), "perf_event_open")
    return file


@functools.cache
def library() -> Any:
    """Return the C library."""
    found: Any = ctypes.CDLL(None, use_errno=True)
    long = ctypes.c_long
    found.syscall.argtypes, found.syscall.restype = (long, ctypes.c_void_p, *[long] * 4), long
    found.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong)
    return found


def scaled(read: bytes) -> list[float]:
    """Return the counts of a group from what was read, scaled if it did not count all the time."""
    number, enabled, running, *values = struct.unpack(f"={len(read) // 8}Q", read)
    if enabled and not running:
        raise CountersError("all counters of the processor are in use")
    return [value * (enabled / running if running else 1.0) for value in values[:number]]


def reason(code: int) -> str:
    """Return why perf_event_open failed with an errno."""
    if code in (errno.EACCES, errno.EPERM):
        level = PARANOID.read_text().strip() if PARANOID.exists() else "missing"
        return f"{PARANOID} is {level}, must be at most 2; a container may forbid them too"
    return REASONS.get(code, f"perf_event_open failed: {os.strerror(code)}")


def why_none() -> str | None:
    """Return why there are no hardware counters, or None if there are."""
    try:
        offered_of(HARDWARE)
    except CountersError as error:
        return str(error)
    return None
