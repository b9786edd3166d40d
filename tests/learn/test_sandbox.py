"""A learner's code that hangs, ends its process or fails ends in one sentence."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygpt_np.learn import sandbox
from tinygpt_np.learn.attempt import AttemptError
from tinygpt_np.learn.sandbox import SandboxError, run

LIMIT, WAIT = 0.3, 2.0
ENDED = "your code ended the process before it returned a gradient"


def learner(body: str) -> Callable[[], Any]:
    """Return a learner's function `work`, whose body starts on line 2."""
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    names: dict[str, Any] = {"np": np, "os": os, "sys": sys, "signal": signal, "time": time}
    exec(compile(f"def work():\n{indented}", "own.py", "exec"), names)
    return names["work"]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "LIMIT", LIMIT)
    monkeypatch.setattr(sandbox, "WAIT", WAIT)


def error(body: str) -> SandboxError:
    """Return the error of a learner's function, which has one line and one sentence."""
    with pytest.raises(SandboxError) as raised:
        run(learner(body), "own.py")
    assert "\n" not in str(raised.value)
    return raised.value


def test_the_result_and_what_was_printed_are_returned() -> None:
    value, printed = run(learner("print('hello')\nreturn np.arange(3)"), "own.py")
    np.testing.assert_array_equal(value, np.arange(3))
    assert printed == "hello\n"


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("x = 1\nwhile True:\n    x += 1", (3, 4)),
        ("while True:\n  try:\n    time.sleep(9)\n  except BaseException: pass", (4,)),
        ("while True:\n    print('x' * 100)", (2, 3)),
        ("signal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(60)", (3,)),
        ("def again():\n    while True: pass\nagain()", (3,)),
    ],
)  # fmt: skip
def test_the_line_of_an_endless_loop_is_named(body: str, line: tuple[int, ...]) -> None:
    found = error(body)
    assert found.line in line
    # A busy machine may take longer than WAIT for LIMIT seconds of processor time.
    seconds = "2" if "sleep" in body else r"(0\.3|2)"
    sentence = f"line {found.line} was still running after {seconds} s; does a loop never end\\?"
    assert re.fullmatch(sentence, str(found))


def test_code_that_no_signal_interrupts_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "GRACE", LIMIT)
    found = error("import itertools\nsum(itertools.count())")
    assert str(found) == "your code did not finish in 2 s; does a loop never end?"


@pytest.mark.parametrize(
    "body", ["sys.exit()", "sys.exit('done')", "exit(3)", "os._exit(0)", "os._exit(5)"]
)
def test_code_that_ends_the_process_is_named(body: str) -> None:
    assert str(error(body)) == ENDED


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_crash_is_named_by_its_signal(number: signal.Signals) -> None:
    found = error(f"os.kill(os.getpid(), {number:d})\ntime.sleep(9)")
    assert str(found) == f"your code crashed ({number.name}) before it returned a gradient"


LOCAL = "class Mistake(BaseException):\n    def __reduce__(self): 1 / 0\nraise Mistake('a\\nb')"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("input()", "line 2 raises EOFError: EOF when reading a line"),
        ("return np.ones(10**11)", "line 2 raises MemoryError: Unable to allocate 745. GiB"),
        ("def f(): return f()\nf()", "line 2 raises RecursionError: maximum recursion depth"),
        (LOCAL, "line 4 raises Mistake: a b"),
        ("return lambda: 1", "the check of your code raises "),
    ],
)
def test_anything_that_is_raised_becomes_a_sentence_with_its_line(body: str, message: str) -> None:
    assert str(error(body)).startswith(message)


def test_memory_ends_before_that_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MEMORY", 1 << 26)
    monkeypatch.setattr(sandbox, "WAIT", 60)
    monkeypatch.setattr(sandbox, "LIMIT", 60)
    found = error("x = []\nwhile True: x.append(bytearray(1 << 20))")
    assert str(found) == "line 3 raises MemoryError"


def test_a_keyboard_interrupt_of_the_code_is_not_one_of_the_reader() -> None:
    assert str(error("raise KeyboardInterrupt")) == "line 2 raises KeyboardInterrupt"


def test_an_attempt_error_keeps_its_line() -> None:
    def work() -> None:
        raise AttemptError("no function backward", 7)

    with pytest.raises(AttemptError, match=r"^no function backward$") as raised:
        run(work, "own.py")
    assert raised.value.line == 7


def test_code_changes_nothing_here(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGALRM), np.pi, sys.stdin, dict(os.environ)
    run(learner("np.pi = 3\nos.environ['X'] = '1'\nos.write(1, b'seen')\nos.close(0)"), "own.py")
    assert before == (signal.getsignal(signal.SIGALRM), np.pi, sys.stdin, dict(os.environ))
    assert capfd.readouterr() == ("", "")


def test_the_first_characters_of_a_long_output_are_kept() -> None:
    _, printed = run(learner("for n in range(10**4): print(n)"), "own.py")
    assert printed.startswith("0\n1\n2\n")
    assert len(printed) == sandbox.MOST


def test_no_process_is_left() -> None:
    error("while True: pass")
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_processes_that_the_code_has_started_are_ended(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    body = f"if os.fork() == 0: time.sleep(60)\nopen({str(path)!r}, 'w').write(str(os.getpgrp()))"
    run(learner(body), "own.py")
    group = int(path.read_text())
    deadline = time.monotonic() + 10
    while is_running(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(group)


def is_running(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
