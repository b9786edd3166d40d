"""`tinygpt runs`: the table of runs, and the settings that differ."""

import io
import re
import shutil
from pathlib import Path

import pytest
from helpers.commands import Captured, error_of, output_of
from rich.console import Console

from tinygpt_np.cli.runs import COLUMNS, duration, show
from tinygpt_np.training import metrics


def test_runs_are_listed_and_compared_also_new_and_damaged_ones(
    run: Path, capsys: Captured
) -> None:
    other = Path(shutil.copytree(run, run.with_name("other")))
    config = (other / "config.json").read_text()
    (other / "config.json").write_text(config.replace('"seed": 1337', '"seed": 2'))
    (run.parent / "new").mkdir()
    shutil.copy(run / "config.json", run.parent / "new")
    losses = [row.val_loss for row in metrics.read(run) if row.val_loss]
    out = output_of(capsys, "runs")
    for name in ("cpu", "other"):
        row = rf"{name} +1,000 +text\.txt +20 of 20 +{losses[-1]:.4f} +{min(losses):.4f} +\w+"
        assert re.search(row, out), (row, out)
    assert re.search(r"new +text\.txt +0 of 20 +\w+", out)

    out = output_of(capsys, "runs", "cpu", "runs/other")
    assert re.search(r"setting +cpu +other\nseed +1337 +2\n*$", out), out
    assert "n_layer" not in out
    assert "their settings are the same" in output_of(capsys, "runs", "cpu", "cpu")

    (other / "config.json").write_text('{"n_layer": [')
    out = output_of(capsys, "runs")
    assert re.search(r"cpu +1,000", out)
    assert re.search(r"note +runs/other/config\.json is damaged", out)


def test_without_runs_the_message_says_how_to_make_one(capsys: Captured) -> None:
    assert "there is no run in runs/; tinygpt train makes one" in error_of(capsys, "runs")


def test_a_pipe_gets_one_line_per_run_and_a_terminal_keeps_steps_and_durations() -> None:
    numbers = ["10,795,776", "tinyshakespeare.txt", "5,000 of 5,000", "1.4697", "1.4697", "17 min"]
    lines: dict[bool, list[str]] = {}
    for terminal in (False, True):
        out = io.StringIO()
        console = Console(file=out, force_terminal=terminal, color_system=None, width=80)
        show(COLUMNS, [["a-run-with-a-long-name", *numbers]], console)
        lines[terminal] = out.getvalue().splitlines()
    header, row = lines[False]
    assert row.split() == ["a-run-with-a-long-name", *" ".join(numbers).split()]
    assert len(header) == len(row) > 80
    assert max(map(len, lines[True])) <= 80
    for cell in ("5,000 of 5,000", "17 min"):
        assert any(cell in line for line in lines[True]), lines


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-5, "now"), (59.9, "59 s"), (1025, "17 min"), (3600, "1 h"), (200_000, "2 d")],
)
def test_a_duration_is_in_its_largest_unit(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected
