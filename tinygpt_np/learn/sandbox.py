"""Run a learner's code in a process of its own, which cannot hang or end this one."""

import contextlib
import faulthandler
import io
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

# Seconds that code may take, and those after which a process that does not answer is killed.
LIMIT, GRACE = 10.0, 5.0
# Characters of a learner's own output that are kept.
MOST = 4000


class SandboxError(ValueError):
    """The code did not end by itself; the message says why. line: where it was, or 0."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


def run(work: Callable[[], Any], file: str) -> tuple[Any, str]:
    """Return the result of `work`, run in a copy of this process, and what it printed.

    file: that of the learner, whose line is named if time runs out. The result must be picklable.
    Raise SandboxError if the code takes longer than LIMIT seconds, or ends the process.
    """
    limit = LIMIT
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    sys.stdout.flush()
    with warnings.catch_warnings():
        # Python 3.12 warns of threads, which the copy does not use.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = context.Process(target=child, args=(work, file, limit, there), daemon=True)
        process.start()
    there.close()
    try:
        if not here.poll(limit + GRACE):
            raise SandboxError(f"your code did not finish in {limit:g} s; does a loop never end?")
        kind, value, printed, line = here.recv()
    except EOFError:
        process.join()
        how = "ended the process" if process.exitcode == 0 else f"crashed ({process.exitcode})"
        raise SandboxError(f"your code {how} before it returned a gradient") from None
    finally:
        process.kill()
        process.join()
        here.close()
    if kind == "late":
        where = f"line {line} was still running after" if line else "your code did not finish in"
        raise SandboxError(f"{where} {limit:g} s; does a loop never end?", line)
    if kind == "error":
        raise value
    return value, printed


def child(work: Callable[[], Any], file: str, limit: float, pipe: Any) -> None:
    """Run `work` and send its result; the process ends without any clean-up of the parent's."""
    faulthandler.disable()
    out = Limited()

    def late(_: int, frame: FrameType | None) -> None:
        while frame is not None and frame.f_code.co_filename != file:
            frame = frame.f_back
        pipe.send(("late", None, "", frame.f_lineno if frame else 0))
        os._exit(0)

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            sys.stdin = io.StringIO()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = work()
        pipe.send(("result", result, out.getvalue(), 0))
    except SystemExit:
        pass
    except BaseException as error:
        pipe.send(("error", error, "", 0))
    finally:
        pipe.close()
        os._exit(0)


class Limited(io.StringIO):
    """A text that stops growing, so that printing in an endless loop does not fill the memory."""

    def write(self, text: str, /) -> int:
        """Keep the text if there is room for it."""
        if self.tell() < MOST:
            super().write(text[: MOST - self.tell()])
        return len(text)
