"""Signals that end a training: the first lets it finish its step and save."""

import contextlib
import signal
import sys
from collections.abc import Callable, Generator


@contextlib.contextmanager
def interrupts() -> Generator[Callable[[], bool]]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into a flag; a second one stops at once.

    SIGHUP may come twice when a terminal is closed, from the shell and from the system, so it never
    stops at once. A signal that is ignored stays ignored: nohup ignores SIGHUP, and a shell starts
    background jobs with SIGINT ignored.
    """
    received: list[int] = []
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none.

    def receive(number: int, frame: object) -> None:
        if received and number != hangup:
            raise KeyboardInterrupt
        received.append(number)
        with contextlib.suppress(OSError):  # The terminal may be gone.
            print(
                "\nfinishing this step and saving; press Ctrl-C again to stop at once",
                file=sys.stderr,
            )

    numbers = [number for number in (signal.SIGINT, signal.SIGTERM, hangup) if number is not None]
    handled = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, receive) for number in handled}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
