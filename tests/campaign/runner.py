"""Run a case, and say what is wrong with its outcome: in this process, or in one of its own."""

import contextlib
import hashlib
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from campaign.case import Accepted, Case, Either, Outcome, Process, Refused

from tinygpt_np import cli

# Seconds after which a command is said to hang, if nothing else runs on the machine, and those that
# its process is given to end.
LIMIT, GRACE = 20, 10
COMMAND = [sys.executable, "-c", "from tinygpt_np.cli import main; main()"]
# Nothing is downloaded, a line is as long as it is, and nothing is drawn for a terminal.
ENVIRONMENT = {
    "COLUMNS": "500",
    "HF_HUB_OFFLINE": "1",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_COLOR": "1",
    "PYTHONWARNINGS": "default",
}
# Files beyond this size are told apart by it alone.
LARGE = 1 << 26
# A message is a line or two, of this many characters at most.
LINES, CHARACTERS = 2, 2500
NOTE = re.compile(r"^note  .*\n", re.MULTILINE)
LEAKS = re.compile(r"Traceback|Warning|<class|NoneType|Error parsing|site-packages|object at 0x")
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
# The lock of a run, which stays there, and names of unfinished files.
LOCK = ".lock"
UNFINISHED = re.compile(r"(^|/)(\.writing-|tmp)|\.tmp$|\.part$")


def limit() -> float:
    """Return LIMIT, or more where several processes want each core."""
    return LIMIT * max(1, os.getloadavg()[0] / (os.cpu_count() or 1))


class Hang(BaseException):
    """A command took too long. No Exception, so that nothing on the way catches it."""


def run(case: Case, folder: Path) -> Outcome:
    """Run a case in a folder, and compare the folder before and after."""
    before, began = contents(folder), time.monotonic()
    with tempfile.TemporaryDirectory() as spool:
        start = run_here if case.process is None else run_apart
        code, stdout, stderr = start(case, folder, Path(spool))
        seconds = time.monotonic() - began
        left = [f"(temporary) {path.name}" for path in Path(spool).iterdir()]
    after = contents(folder)
    made = {name: value for name, value in after.items() if name not in before}
    made |= dict.fromkeys(left, "")
    changed = [name for name, value in before.items() if after.get(name) != value]
    for place in (str(folder.resolve()), str(folder)):
        stdout, stderr = stdout.replace(place, "."), stderr.replace(place, ".")
    return Outcome(code, stdout, stderr, seconds, made, changed)


# In this process


def run_here(case: Case, folder: Path, spool: Path) -> tuple[int | None, str, str]:
    code: int | None = 0
    with (
        working_in(folder, {**ENVIRONMENT, "TMPDIR": str(spool)}),
        captured() as streams,
        warnings.catch_warnings(record=True) as warned,
    ):
        warnings.simplefilter("always")
        try:
            with time_limit():
                cli.main(case.command)
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
    out, err = streams
    return code, out, err


@contextlib.contextmanager
def working_in(folder: Path, environment: dict[str, str]) -> Generator[None]:
    before, where, spool = dict(os.environ), Path.cwd(), tempfile.tempdir
    os.environ.update(environment)
    tempfile.tempdir = None
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(where)
        tempfile.tempdir = spool
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def captured() -> Generator[list[str]]:
    """Collect both streams, and what native code writes past Python's, into the list."""
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
            streams += [written_to(out), written_to(err)]


def written_to(file: BinaryIO) -> str:
    """Return the beginning of a file, which is what a command has written."""
    file.seek(0)
    return file.read(1 << 20).decode(errors="backslashreplace")


@contextlib.contextmanager
def time_limit() -> Generator[None]:
    """Raise Hang in what is done inside when its time has passed."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang

    before, began = signal.signal(signal.SIGALRM, stop), time.monotonic()
    left, _ = signal.setitimer(signal.ITIMER_REAL, limit())
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)
        # The limit of the whole test goes on.
        passed = time.monotonic() - began
        signal.setitimer(signal.ITIMER_REAL, max(left - passed, 0.001) if left else 0)


# In a process of its own


def run_apart(case: Case, folder: Path, spool: Path) -> tuple[int | None, str, str]:
    process = case.process or Process()
    environment = {**os.environ, **ENVIRONMENT, "TMPDIR": str(spool)}
    for name, value in process.environment.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value

    def prepare() -> None:
        if process.memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (process.memory, process.memory))
        if process.stdout is not None:
            os.dup2(os.open(process.stdout, os.O_WRONLY), 1)
        for number in process.closed:
            os.close(number)

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = subprocess.Popen(
            [*COMMAND, *case.command],
            cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=out, stderr=err,
            preexec_fn=prepare,
        )  # fmt: skip
        try:
            interrupt(started, process, folder)
            started.communicate(process.stdin, timeout=limit())
            code: int | None = started.returncode
        except subprocess.TimeoutExpired:
            started.kill()
            started.communicate(timeout=GRACE)
            code = None
        return code, written_to(out), written_to(err)


def interrupt(started: "subprocess.Popen[bytes]", process: Process, folder: Path) -> None:
    """Send the signals of a case."""
    if not process.signals:
        return
    end = time.monotonic() + limit()
    while started.poll() is None and not (folder / process.until).exists():
        if time.monotonic() > end:
            return
        time.sleep(0.01)
    for number in process.signals:
        started.send_signal(number)


# Contents of folders


def contents(folder: Path) -> dict[str, str]:
    """Return every entry of a folder by its path, and what tells it from another."""
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


def judge(case: Case, outcome: Outcome, undamaged: Callable[[list[str]], Outcome]) -> str:
    """Return what is wrong with an outcome; "" if it is right."""
    return (
        judge_manners(case, outcome)
        or judge_expectation(case, outcome, undamaged)
        or judge_files(case, outcome)
    )


def judge_manners(case: Case, outcome: Outcome) -> str:
    """Find what no command may do, whatever it was given."""
    if outcome.code is None and "Traceback" not in outcome.stderr:
        return "it hangs"
    if leak := LEAKS.search(outcome.stderr):
        return f"its message has {leak[0]!r} in it"
    stopped = case.process is not None and case.process.signals
    if outcome.code not in ((0, 1, 2, 130) if stopped else (0, 1, 2)):
        return f"it exits with {outcome.code}"
    if outcome.seconds > limit():
        return f"it takes {outcome.seconds:.0f} s"
    if outcome.code in (1, 2):
        message = NOTE.sub("", outcome.stderr)
        if not message.startswith("tinygpt: "):
            return f"it exits with {outcome.code} without a message"
        if len(message.strip().splitlines()) > LINES:
            return "its message is longer than a line or two"
        if len(outcome.stderr) > CHARACTERS:
            return f"its message has {len(outcome.stderr)} characters"
    if control := CONTROL.search(outcome.stderr):
        return f"its message has the control character {control[0]!r} in it"
    return ""


def judge_files(case: Case, outcome: Outcome) -> str:
    """Find inputs that were changed, and files that were left over."""
    unfinished = [name for name in outcome.made if UNFINISHED.search(name) or "(temp" in name]
    if unfinished:
        return f"it leaves {', '.join(unfinished)}"
    leaves = case.expected.leaves if isinstance(case.expected, Refused) else ()
    left = [name for name in outcome.made if not name.startswith(leaves or ("\0",))]
    if outcome.code in (1, 2) and left:
        return f"it is refused, and leaves {', '.join(left[:5])}"
    may_change = case.writes if outcome.code in (0, 130) else ()
    changed = [name for name in outcome.changed if not name.startswith(may_change or ("\0",))]
    return f"it changes {', '.join(changed)}" if changed else ""


def judge_expectation(
    case: Case, outcome: Outcome, undamaged: Callable[[list[str]], Outcome]
) -> str:
    expected, succeeded = case.expected, outcome.code in (0, 130)
    if isinstance(expected, Accepted):
        if not succeeded:
            return "it is harmless, but refused"
        if expected.check is not None:
            return expected.check(outcome)
        return compare(outcome, undamaged(list(expected.like or case.command)))
    if succeeded and isinstance(expected, Refused):
        return "it is accepted silently"
    if succeeded and isinstance(expected, Either):
        return expected.check(outcome) if expected.check is not None else ""
    if not any(name in outcome.stderr for name in expected.names):
        return f"its message names none of {', '.join(expected.names)}"
    return ""


def compare(outcome: Outcome, expected: Outcome) -> str:
    """Return how an outcome differs from that on the undamaged input."""
    if expected.code != 0:
        return f"the undamaged input is refused: {expected.stderr}"
    if outcome.stdout != expected.stdout:
        return f"it prints something else than on the undamaged input: {expected.stdout!r}"
    if NOTE.sub("", outcome.stderr) != expected.stderr:
        return f"it warns: {outcome.stderr!r}"
    if outcome.made != expected.made:
        differing = set(outcome.made.items()) ^ set(expected.made.items())
        return f"it writes other files: {', '.join(sorted({name for name, _ in differing}))}"
    return ""
