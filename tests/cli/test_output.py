"""Facts and texts are printed unchanged."""

import io
from itertools import count
from unittest.mock import Mock

import pytest
from helpers.commands import Captured
from rich.console import Console

from tinygpt_np.cli import output
from tinygpt_np.cli.output import PATIENCE, print_facts, waiting, write


def test_facts_and_texts_are_printed_without_markup(capsys: Captured) -> None:
    out, value = io.StringIO(), f"[bold]{'x' * 50}[/bold].txt"
    print_facts(Console(file=out, width=20), [("data", value)])
    assert "".join(out.getvalue().split()) == f"data{value}"
    write(["[red]", "x" * 300])
    assert capsys.readouterr().out == "[red]" + "x" * 300 + "\n"


def test_the_progress_of_a_short_wait_is_not_shown(capsys: Captured) -> None:
    with waiting("studying") as announce:
        announce("dx", 1, 4)
    assert capsys.readouterr() == ("", "")


def test_the_progress_of_a_long_wait_is_printed_on_stderr_now_and_then(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(0, 1.5)
    monkeypatch.setattr(output.time, "monotonic", lambda: next(clock))
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
    monkeypatch.setattr(output.time, "monotonic", lambda: next(clock))
    terminal = Console(file=out, force_terminal=True, width=80)
    monkeypatch.setattr(output, "Output", Mock(return_value=terminal))
    with waiting("studying") as announce:
        announce("dx", 0, 2)
        assert out.getvalue() == ""
        announce("dw", 1, 2)
    assert "studying: dw, 1 of about 2 done" in out.getvalue()
    assert out.getvalue().endswith("\x1b[2K")
