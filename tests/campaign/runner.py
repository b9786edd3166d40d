"""Run a command on a damaged input, and say what is wrong with its outcome."""

import hashlib
import os
import re
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from types import FrameType
from typing import NamedTuple

import pytest

from tinygpt_np import cli

# Seconds after which a command is said to hang on an idle machine.
LIMIT = 20
# Nothing is downloaded, lines are not wrapped and nothing is drawn for a terminal.
ENVIRONMENT = {
    "COLUMNS": "500",
    "NO_COLOR": "1",
    "HF_HUB_OFFLINE": "1",
    "HTTPS_PROXY": "http://127.0.0.1:9",
}
# A message has at most this many lines and characters.
LINES, CHARACTERS = 2, 2500
NOTE = re.compile(r"^note  .*\n", re.MULTILINE)
LEAKS = re.compile(r"Traceback|Warning|<class|NoneType|Error parsing|site-packages|object at 0x")
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
# Names of unfinished files; temporary files are written to tmp/.
UNFINISHED = re.compile(r"(^|/)\.writing-|^tmp/|\.tmp$|\.part$")


class Outcome(NamedTuple):
    """The exit code of a command, None for a crash or a hang; its output; the files it changed."""

    code: int | None
    stdout: str
    stderr: str
    made: Mapping[str, str]
    changed: Sequence[str]


class Fault(NamedTuple):
    """Ways to damage one of the files, or arguments to add to a command, and what must come out.

    The command is refused, with a name of the file, an argument or one of `names` in its message;
    or it is accepted, and has its outcome on the undamaged input, or prints a text. If both are
    allowed, the input is ambiguous.
    """

    commands: Iterable[Sequence[str]]
    files: str = ""
    ways: Mapping[str, Callable[[Random, Path], object]] = {"nothing": lambda rng, path: None}
    names: Sequence[str] = ()
    refused: bool = True
    accepted: bool = False
    prints: str = ""
    arguments: Sequence[tuple[str, ...]] = ((),)


class Hang(BaseException):
    """A command took too long. Not an Exception, which a command might catch."""


def run(command: Sequence[str], folder: Path, capfd: pytest.CaptureFixture[str]) -> Outcome:
    """Run a command in a folder and compare the folder before and after.

    Both streams are captured, including what native code writes.
    """
    before = contents(folder)
    capfd.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(tempfile, "tempdir", str(folder / "tmp"))
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        code = exit_code(command)
    # Outcomes in different folders are compared.
    stdout, stderr = (stream.replace(str(folder), "FOLDER") for stream in capfd.readouterr())
    after = contents(folder)
    made = {name: value for name, value in after.items() if name not in before}
    changed = [name for name, value in before.items() if after.get(name) != value]
    return Outcome(code, stdout, stderr, made, changed)


def exit_code(command: Sequence[str]) -> int | None:
    """Run a command in this process; return None if it crashes or hangs."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang

    code: int | None = 0
    busy = max(1, os.getloadavg()[0] / (os.cpu_count() or 1))
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT * busy)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            cli.main(list(command))
        except SystemExit as stopped:
            code = stopped.code if isinstance(stopped.code, int | None) else 1
        except Hang:
            code = None
        except BaseException:
            code = None
            traceback.print_exc()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        for warning in warned:
            print(f"{warning.category.__name__}: {warning.message}", file=sys.stderr)
    return code


def contents(folder: Path) -> dict[str, str]:
    """Return every entry of a folder but locks by its path, with what identifies its content."""
    paths = sorted(path for path in folder.rglob("*") if path.name != ".lock")
    return {str(path.relative_to(folder)): identity(path) for path in paths}


def identity(path: Path) -> str:
    if path.is_symlink():
        return f"-> {path.readlink()}"
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return "a folder" if path.is_dir() else "a device"


def problems(
    outcome: Outcome, fault: Fault, names: Sequence[str], undamaged: Callable[[], Outcome]
) -> Iterator[str]:
    """Yield what is wrong with an outcome. A refusal must have one of the names in its message."""
    code, stderr, message = outcome.code, outcome.stderr, NOTE.sub("", outcome.stderr)
    if leak := LEAKS.search(stderr):
        yield f"its message contains {leak[0]!r}"
    if code is None:
        yield "it hangs"
    if code not in (0, 1, 2):
        yield f"it exits with {code}"
    if code and not message.startswith("tinygpt: "):
        yield f"it exits with {code} without a message"
    if (code and message.strip().count("\n") >= LINES) or len(stderr) > CHARACTERS:
        yield f"its message is longer than {LINES} lines or {CHARACTERS} characters"
    if control := CONTROL.search(stderr):
        yield f"its message contains the control character {control[0]!r}"
    if unfinished := [name for name in outcome.made if UNFINISHED.search(name)]:
        yield f"it leaves {', '.join(unfinished)}"
    if code and not fault.refused:
        yield "it is harmless, but refused"
    if code and not any(name in stderr for name in names):
        yield f"its message names none of {', '.join(names)}"
    if code and (touched := [*outcome.made, *outcome.changed][:5]):
        yield f"it is refused, but makes or changes {', '.join(touched)}"
    if code == 0 and not fault.accepted:
        yield "it is accepted silently"
    elif code == 0:
        same = undamaged()
        if same.code != 0:
            yield f"the undamaged input is refused: {same.stderr}"
        if changed := {*outcome.changed} - {*same.changed}:
            yield f"it changes {', '.join(changed)}"
        if fault.prints and fault.prints not in outcome.stdout:
            yield f"it should print {fault.prints!r}"
        elif not fault.prints and outcome.stdout != same.stdout:
            yield f"it prints something else than on the undamaged input: {same.stdout!r}"
        elif not fault.prints and message != NOTE.sub("", same.stderr):
            yield f"it warns: {stderr!r}"
        elif not fault.prints and outcome.made != same.made:
            yield f"it makes {', '.join(outcome.made)} with other contents"
