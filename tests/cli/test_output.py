"""Facts and texts are printed unchanged."""

import io

import pytest
from rich.console import Console

from tinygpt_np.cli.output import print_facts, write


def test_markup_in_a_fact_is_printed_as_text() -> None:
    out = io.StringIO()
    print_facts(Console(file=out, width=40), [("data", "[bold]text[/bold].txt")])
    assert out.getvalue().rstrip() == "data  [bold]text[/bold].txt"


def test_a_long_fact_is_wrapped() -> None:
    out = io.StringIO()
    print_facts(Console(file=out, width=20), [("file", "x" * 50)])
    assert out.getvalue().count("x") == 50


def test_text_is_written_with_a_newline_at_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(["[red]", "x" * 300])
    assert capsys.readouterr().out == "[red]" + "x" * 300 + "\n"
