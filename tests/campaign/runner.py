"""Run a command on a damaged input, and say what is wrong with its outcome."""

import contextlib
import hashlib
import os
import re
import signal
import stat
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from campaign.faults import Damage, Fault, Outcome

from tinygpt_np import cli

# Seconds after which a command is said to hang on an idle machine.
LIMIT = 20
# Nothing is downloaded, lines are not wrapped and nothing is drawn for a terminal.
ENVIRONMENT = {
    "COLUMNS": "500",
    "HF_HUB_OFFLINE": "1",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_COLOR": "1",
    "PYTHONWARNINGS": "default",
}
# The size identifies a file that is larger than this.
LARGE = 1 << 26
# A message has at most this many lines and characters.
LINES, CHARACTERS = 2, 2500
NOTE = re.compile(r"^note  .*\n", re.MULTILINE)
LEAKS = re.compile(r"Traceback|Warning|<class|NoneType|Error parsing|site-packages|object at 0x")
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
# The lock of a run, which stays, and names of unfinished files.
LOCK = ".lock"
UNFINISHED = re.compile(r"(^|/)(\.writing-|tmp)|\.tmp$|\.part$|\(temporary\)")


def limit() -> float:
    """Return LIMIT, or more on a busy machine."""
    return LIMIT * max(1, os.getloadavg()[0] / (os.cpu_count() or 1))


class Hang(BaseException):
    """A command took too long. Not an Exception, which a command might catch."""


def run(command: Sequence[str], folder: Path) -> Outcome:
    """Run a command in a folder and compare the folder before and after."""
    before, began = contents(folder), time.monotonic()
    with tempfile.TemporaryDirectory() as spool:
        with working_in(folder, {**ENVIRONMENT, "TMPDIR": spool}), captured() as streams:
            code = exit_code(command)
        # Outcomes in different folders are compared.
        stdout, stderr = (stream.replace(str(folder), "FOLDER") for stream in streams)
        seconds = time.monotonic() - began
        left = [f"(temporary) {path.name}" for path in Path(spool).iterdir()]
    after = contents(folder)
    made = {name: value for name, value in after.items() if name not in before}
    changed = [name for name, value in before.items() if after.get(name) != value]
    return Outcome(code, stdout, stderr, seconds, made | dict.fromkeys(left, ""), changed)


def exit_code(command: Sequence[str]) -> int | None:
    """Run a command in this process; return None if it crashes or hangs."""
    code: int | None = 0
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            with time_limit():
                cli.main(list(command))
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) or stop.code is None else 1
        except Hang:
            code = None
            print("stopped", file=sys.stderr)
        except BaseException:
            code = None
            traceback.print_exc()
        for warning in warned:
            print(f"{warning.category.__name__}: {warning.message}", file=sys.stderr)
    return code


@contextlib.contextmanager
def working_in(folder: Path, variables: Mapping[str, str]) -> Generator[None]:
    before, spool = dict(os.environ), tempfile.tempdir
    os.environ.update(variables)
    tempfile.tempdir = None
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        tempfile.tempdir = spool
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def captured() -> Generator[list[str]]:
    """Collect both streams, including what native code writes, into the list."""
    streams: list[str] = []
    before = sys.stdout, sys.stderr
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        kept = os.dup(1), os.dup(2)
        try:
            for number, file in ((1, out), (2, err)):
                os.dup2(file.fileno(), number)
            sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            yield streams
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(ValueError, OSError):
                    stream.flush()
            sys.stdout, sys.stderr = before
            for number, descriptor in zip((1, 2), kept, strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)
            streams += [read_back(out), read_back(err)]


def read_back(file: BinaryIO) -> str:
    file.seek(0)
    return file.read(1 << 20).decode(errors="backslashreplace")


@contextlib.contextmanager
def time_limit() -> Generator[None]:
    """Raise Hang in the context when its time is up."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit())
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# Contents of folders


def contents(folder: Path) -> dict[str, str]:
    """Return every entry of a folder by its path, with what identifies its content."""
    return {str(path.relative_to(folder)): identity(path) for path in entries(folder)}


def entries(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name == LOCK:
            continue
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from entries(path)


def identity(path: Path) -> str:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return f"-> {path.readlink()}"
    if stat.S_ISREG(found.st_mode):
        large = found.st_size > LARGE
        return str(found.st_size) if large else hashlib.sha256(path.read_bytes()).hexdigest()
    return f"kind {stat.S_IFMT(found.st_mode)}"


# The verdict


def verdict(
    fault: Fault, damage: Damage, outcome: Outcome, undamaged: Callable[[], Outcome]
) -> str:
    """Return what is wrong with an outcome, or ""."""
    return (
        never_right(outcome)
        or unexpected(fault, damage, outcome, undamaged)
        or wrong_files(fault, outcome)
    )


def never_right(outcome: Outcome) -> str:
    """Return what no command may do, whatever its input."""
    if outcome.code is None and "Traceback" not in outcome.stderr:
        return "it hangs"
    if leak := LEAKS.search(outcome.stderr):
        return f"its message contains {leak[0]!r}"
    if outcome.code not in (0, 1, 2):
        return f"it exits with {outcome.code}"
    if outcome.seconds > limit():
        return f"it takes {outcome.seconds:.0f} s"
    message = NOTE.sub("", outcome.stderr)
    if outcome.code and not message.startswith("tinygpt: "):
        return f"it exits with {outcome.code} without a message"
    if outcome.code and len(message.strip().splitlines()) > LINES:
        return f"its message is longer than {LINES} lines"
    if len(outcome.stderr) > CHARACTERS:
        return f"its message has {len(outcome.stderr)} characters"
    if control := CONTROL.search(outcome.stderr):
        return f"its message contains the control character {control[0]!r}"
    return ""


def unexpected(
    fault: Fault, damage: Damage, outcome: Outcome, undamaged: Callable[[], Outcome]
) -> str:
    names = fault.names or damage.names or ("",)
    if outcome.code:
        if not fault.refused:
            return "it is harmless, but refused"
        if not any(name in outcome.stderr for name in names):
            return f"its message names none of {', '.join(names)}"
        return ""
    if not fault.accepted:
        return "it is accepted silently"
    if fault.check is not None:
        return fault.check(outcome)
    return "" if fault.refused else difference(outcome, undamaged())


def wrong_files(fault: Fault, outcome: Outcome) -> str:
    """Return which inputs were changed or files left over."""
    unfinished = [name for name in outcome.made if UNFINISHED.search(name)]
    if unfinished:
        return f"it leaves {', '.join(unfinished)}"
    if outcome.code and outcome.made:
        return f"it is refused, and leaves {', '.join([*outcome.made][:5])}"
    may_change = fault.may_change if outcome.code == 0 else ()
    changed = [name for name in outcome.changed if not name.startswith(may_change or ("\0",))]
    return f"it changes {', '.join(changed)}" if changed else ""


def difference(outcome: Outcome, expected: Outcome) -> str:
    """Return how an outcome differs from that on the undamaged input."""
    if expected.code != 0:
        return f"the undamaged input is refused: {expected.stderr}"
    if outcome.stdout != expected.stdout:
        return f"it prints something else than on the undamaged input: {expected.stdout!r}"
    if NOTE.sub("", outcome.stderr) != NOTE.sub("", expected.stderr):
        return f"it warns: {outcome.stderr!r}"
    if outcome.made != expected.made:
        differing = set(outcome.made.items()) ^ set(expected.made.items())
        return f"it writes other files: {', '.join(sorted({name for name, _ in differing}))}"
    return ""
