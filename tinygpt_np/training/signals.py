"""Signals that end a training: the first lets it finish its step and save."""

import contextlib
import signal
import sys
from collections.abc import Callable, Generator


@contextlib.contextmanager
def interrupts(quiet: bool = False) -> Generator[Callable[[], bool]]:
    """Turn the first Ctrl-C, SIGTERM, SIGHUP or SIGUSR1 into a flag; a second one stops at once.

    SIGHUP may come twice when a terminal is closed, from the shell and from the system, so it never
    stops at once. Nor does SIGUSR1, with which batch systems announce the end of a job: Slurm sends
    it 120 seconds before with `--signal=USR1@120`, and Open MPI's mpirun forwards it to all ranks.
    A signal that is ignored stays ignored: nohup ignores SIGHUP, and a shell starts background jobs
    with SIGINT ignored.

    quiet: print nothing, because another rank does.
    """
    received: list[int] = []
    # Windows has neither.
    requests = [getattr(signal, name, None) for name in ("SIGHUP", "SIGUSR1")]

    def receive(number: int, frame: object) -> None:
        if received and number not in requests:
            raise KeyboardInterrupt
        received.append(number)
        if quiet:
            return
        with contextlib.suppress(OSError):  # The terminal may be gone.
            print(
                "\nfinishing this step and saving; press Ctrl-C again to stop at once",
                file=sys.stderr,
            )

    numbers = (signal.SIGINT, signal.SIGTERM, *requests)
    handled = [
        number
        for number in numbers
        if number is not None and signal.getsignal(number) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, receive) for number in handled}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
