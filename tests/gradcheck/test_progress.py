"""The progress of a long computation is shown on stderr, and not too often."""

import io
import subprocess
import sys
from itertools import count
from unittest.mock import Mock

import pytest
from helpers.commands import Captured
from rich.console import Console

from tinygpt_np.gradcheck import progress
from tinygpt_np.gradcheck.progress import PATIENCE, waiting


def test_the_progress_of_a_short_wait_is_not_shown(capsys: Captured) -> None:
    with waiting("studying") as announce:
        announce("dx", 1, 4)
    assert capsys.readouterr() == ("", "")


def test_the_progress_of_a_long_wait_is_printed_on_stderr_now_and_then(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(0, 1.5)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with waiting("studying [x]") as announce:
        for done in range(8):
            announce(f"d[{done}]", done, 8)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == "studying [x]: d[1], 1 of about 8 done, about 21 s left"
    assert len(lines) == 2
    assert PATIENCE == 2


def test_a_terminal_gets_a_status_that_disappears(monkeypatch: pytest.MonkeyPatch) -> None:
    out, clock = io.StringIO(), count(0, 1.5)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    terminal = Console(file=out, force_terminal=True, width=80)
    monkeypatch.setattr(progress, "Console", Mock(return_value=terminal))
    with waiting("studying") as announce:
        announce("dx", 0, 2)
        assert out.getvalue() == ""
        announce("dw", 1, 2)
    assert "studying: dw, 1 of about 2 done" in out.getvalue()
    assert out.getvalue().endswith("\x1b[2K")


SLOW_CHECK = """
import time
import numpy as np
from tinygpt_np.gradcheck import check

def forward(x):
    time.sleep(0.04)
    return x * x, x

print(check(forward, lambda dy, x: 2 * dy * x, (np.arange(1.0, 41.0),)).ok)
"""


@pytest.mark.slow
def test_a_long_check_shows_its_progress_and_in_a_test_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = [sys.executable, "-c", SLOW_CHECK]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("True\n", "")
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    line = done.stderr.splitlines()[0]
    assert line.startswith("checking the gradients: x, ")
    assert " of about 40 done" in line
