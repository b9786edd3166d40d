"""Run a learner's code in a process of its own, which cannot hang or end this one."""

import contextlib
import faulthandler
import io
import multiprocessing
import os
import pickle
import resource
import signal
import sys
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

from tinygpt_np.learn.attempt import AttemptError, described, line_of

# Seconds of processor time that code may take, on which other programs have no influence; seconds
# that it may wait; and those after which a process that does not answer is killed.
LIMIT, WAIT, GRACE = 10.0, 60.0, 5.0
# Characters of a learner's own output that are kept.
MOST = 4000
# Bytes that code may use in addition to those that this process has.
MEMORY = 2 << 30


class SandboxError(ValueError):
    """The code did not end by itself; the message says why. line: where it was, or 0."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


def run(work: Callable[[], Any], file: str) -> tuple[Any, str]:
    """Return the result of `work`, run in a copy of this process, and what it printed.

    file: that of the learner, whose line is named if time runs out. The result must be picklable.
    Raise SandboxError if the code takes too long, ends the process or raises anything; an
    AttemptError is raised as it is.
    """
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    sys.stdout.flush()
    with warnings.catch_warnings():
        # Python 3.12 warns of threads, which the copy does not use.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = context.Process(target=child, args=(work, file, there), daemon=True)
        process.start()
    there.close()
    try:
        if not here.poll(WAIT + GRACE):
            raise SandboxError(f"your code did not finish in {WAIT:g} s; does a loop never end?")
        value, printed = here.recv()
    except EOFError:
        process.join()
        code = process.exitcode or 0
        how = f"crashed ({signal.Signals(-code).name})" if code < 0 else "ended the process"
        raise SandboxError(f"your code {how} before it returned a gradient") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)  # The processes that it has started, too.
        process.kill()
        process.join()
        here.close()
    if isinstance(value, SandboxError | AttemptError):
        raise value
    return value, printed


def child(work: Callable[[], Any], file: str, pipe: Any) -> None:
    """Run `work` and send its result; the process ends without any clean-up of the parent's."""
    os.setsid()
    faulthandler.disable()
    out = Limited()

    def late(number: int, frame: FrameType | None) -> None:
        limit = LIMIT if number == signal.SIGPROF else WAIT
        while frame is not None and frame.f_code.co_filename != file:
            frame = frame.f_back
        line = frame.f_lineno if frame else 0
        where = f"line {line}" if line else "your code"
        what = f"{where} was still running after {limit:g} s; does a loop never end?"
        pipe.send((SandboxError(what, line), ""))
        os._exit(0)

    signal.signal(signal.SIGPROF, late)
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    signal.setitimer(signal.ITIMER_REAL, WAIT)
    limit_memory()
    replace_streams()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            sys.stdin = io.StringIO()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = work()
                message = pickle.dumps((result, out.getvalue()))
    except SystemExit:
        message = b""
    except BaseException as error:
        message = pickle.dumps((failure(error, file), ""))
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    if message:
        pipe.send_bytes(message)
    os._exit(0)


def failure(error: BaseException, file: str) -> SandboxError | AttemptError:
    """Return what to raise in the parent for an exception in the child."""
    if isinstance(error, AttemptError):
        return error
    line = line_of(error, file)
    where = f"line {line}" if line else "the check of your code"
    return SandboxError(f"{where} {described(error)}", line)


def limit_memory() -> None:
    """Let an allocation raise MemoryError before the system has to kill a process."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))


def replace_streams() -> None:
    """Let the file descriptors of the terminal read and write nothing, for code that uses them."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)


class Limited(io.StringIO):
    """A text that stops growing, so that printing in an endless loop does not fill the memory."""

    def write(self, text: str, /) -> int:
        """Keep the text if there is space for it."""
        if self.tell() < MOST:
            super().write(text[: MOST - self.tell()])
        return len(text)
