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


@pytest.fixture
def other(run: Path) -> Path:
    """Return a copy of runs/cpu with another seed."""
    other = Path(shutil.copytree(run, run.with_name("other")))
    config = (other / "config.json").read_text()
    (other / "config.json").write_text(config.replace('"seed": 1337', '"seed": 2'))
    return other


@pytest.mark.usefixtures("other")
def test_runs_are_listed_with_their_losses(run: Path, capsys: Captured) -> None:
    losses = [row.val_loss for row in metrics.read(run) if row.val_loss]
    out = output_of(capsys, "runs")
    for name in ("cpu", "other"):
        row = rf"{name} +1,000 +text\.txt +20 of 20 +{losses[-1]:.4f} +{min(losses):.4f} +\w+"
        assert re.search(row, out), (row, out)


@pytest.mark.usefixtures("other")
def test_runs_are_compared_by_the_settings_that_differ(capsys: Captured) -> None:
    out = output_of(capsys, "runs", "cpu", "runs/other")
    assert re.search(r"setting +cpu +other\nseed +1337 +2\n*$", out), out
    assert "n_layer" not in out
    assert "their settings are the same" in output_of(capsys, "runs", "cpu", "cpu")


def test_a_new_run_and_a_damaged_one_are_listed(run: Path, other: Path, capsys: Captured) -> None:
    (run.parent / "new").mkdir()
    shutil.copy(run / "config.json", run.parent / "new")
    (other / "config.json").write_text('{"n_layer": [')
    out = output_of(capsys, "runs")
    assert re.search(r"cpu +1,000", out)
    assert re.search(r"new +text\.txt +0 of 20 +\w+", out)
    assert re.search(r"note +runs/other/config\.json is damaged", out)


def test_without_runs_the_message_says_how_to_make_one(capsys: Captured) -> None:
    assert "there is no run in runs/; tinygpt train makes one" in error_of(capsys, "runs")


WIDE_ROW = [
    *("a-run-with-a-long-name", "10,795,776", "tinyshakespeare.txt", "5,000 of 5,000"),
    *("1.4697", "1.4697", "17 min"),
]


def shown(terminal: bool) -> list[str]:
    """Return the lines of a table that is wider than 80 columns."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, color_system=None, width=80)
    show(COLUMNS, [WIDE_ROW], console)
    return out.getvalue().splitlines()


def test_a_table_in_a_pipe_has_one_line_per_run() -> None:
    header, row = shown(terminal=False)
    assert row.split() == " ".join(WIDE_ROW).split()
    assert len(header) == len(row) > 80


def test_a_terminal_does_not_break_steps_and_durations() -> None:
    lines = shown(terminal=True)
    assert max(map(len, lines)) <= 80
    for cell in ("5,000 of 5,000", "17 min"):
        assert any(cell in line for line in lines), lines


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-5, "now"), (0.5, "now"), (59.9, "59 s"), (1025, "17 min"), (3600, "1 h"), (200_000, "2 d")],
)
def test_a_duration_is_in_its_largest_unit(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected
