"""Facts and texts are printed unchanged."""

import io

import pytest
from helpers.commands import Captured
from rich.console import Console

from tinygpt_np.cli.output import Output, print_facts, write


def test_facts_and_texts_are_printed_without_markup(capsys: Captured) -> None:
    out, value = io.StringIO(), f"[bold]{'x' * 50}[/bold].txt"
    print_facts(Console(file=out, width=20), [("data", value)])
    assert "".join(out.getvalue().split()) == f"data{value}"
    write(["[red]", "x" * 300])
    assert capsys.readouterr().out == "[red]" + "x" * 300 + "\n"


def test_a_process_that_mpirun_starts_has_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    assert Output(file=terminal).is_terminal
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    assert not Output(file=terminal).is_terminal
