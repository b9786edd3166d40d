"""Facts and texts are printed unchanged."""

import io

from helpers.commands import Captured
from rich.console import Console

from tinygpt_np.cli.output import print_facts, write


def test_facts_and_texts_are_printed_without_markup(capsys: Captured) -> None:
    out, value = io.StringIO(), f"[bold]{'x' * 50}[/bold].txt"
    print_facts(Console(file=out, width=20), [("data", value)])
    assert "".join(out.getvalue().split()) == f"data{value}"
    write(["[red]", "x" * 300])
    assert capsys.readouterr().out == "[red]" + "x" * 300 + "\n"
