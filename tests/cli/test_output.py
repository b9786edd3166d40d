"""Facts and texts are printed unchanged."""

import io

from helpers.commands import Captured
from rich.console import Console

from tinygpt_np.cli.output import print_facts, write


def test_a_fact_is_wrapped_and_its_markup_is_printed_as_text() -> None:
    out, value = io.StringIO(), f"[bold]{'x' * 50}[/bold].txt"
    print_facts(Console(file=out, width=20), [("data", value)])
    assert "".join(out.getvalue().split()) == f"data{value}"


def test_text_is_written_with_a_newline_at_the_end(capsys: Captured) -> None:
    write(["[red]", "x" * 300])
    assert capsys.readouterr().out == "[red]" + "x" * 300 + "\n"
