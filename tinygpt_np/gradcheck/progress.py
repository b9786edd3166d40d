"""Show the progress of a long computation on stderr."""

import contextlib
import os
import time
from collections.abc import Callable, Generator

from rich.console import Console
from rich.markup import escape

# Takes the part that is computed now, the number of parts done, and of all.
Announce = Callable[[str, int, int], None]
# Seconds until progress is shown, and between two lines in a file.
PATIENCE, INTERVAL = 2.0, 5.0


def quiet(*part: str | int) -> None:
    """Show nothing."""


@contextlib.contextmanager
def waiting(what: str) -> Generator[Announce]:
    """Show the progress of a computation on stderr, if it takes more than two seconds.

    Yields a function to be called with what is computed now, and how many parts of how many are
    done.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True, force_jupyter=False)
    start = time.monotonic()
    shown, status = start + PATIENCE - INTERVAL, console.status("")

    def announce(part: str, done: int, total: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now < start + PATIENCE:
            return
        left = f", about {(now - start) * (total / done - 1):.0f} s left" if done else ""
        text = f"{what}: {part}, {done} of about {total} done{left}"
        if console.is_terminal:
            status.update(escape(text))
            status.start()
        elif now >= shown + INTERVAL:
            shown = now
            console.print(text, markup=False)

    try:
        yield announce
    finally:
        status.stop()


def progress(what: str) -> contextlib.AbstractContextManager[Announce]:
    """Return `waiting`, or in a test, whose output it would disturb, a context that is quiet."""
    return contextlib.nullcontext(quiet) if "PYTEST_CURRENT_TEST" in os.environ else waiting(what)
