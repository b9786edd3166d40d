"""Fixtures of the benchmarks' tests."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let worker processes import the helpers, and let none linger after it was interrupted."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setattr("benchmarks.harness.process.PATIENCE", 0.1)


@pytest.fixture(autouse=True)
def unpinned() -> Iterator[None]:
    """Let the threads that a turn has pinned run on all CPUs again."""
    if not hasattr(os, "sched_getaffinity"):
        yield
        return
    cpus = os.sched_getaffinity(0)
    yield
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError):  # It has ended.
            os.sched_setaffinity(int(thread), cpus)
