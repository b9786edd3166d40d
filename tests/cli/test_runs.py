"""tinygpt runs, as a person uses it."""

import io
import re
from pathlib import Path

import pytest
from cli.running import error_of, said, train_tiny
from rich.console import Console

from tinygpt_np.cli.runs import COLUMNS, age_in_words, show
from tinygpt_np.training import metrics


def train_two(capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("first", "1"), ("second", "2")):
        train_tiny("--name", name, "--seed", seed, "--backend", "numpy", "--max-iters", "10")
    capsys.readouterr()


def test_all_runs_are_listed_with_their_losses(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_two(capsys)
    out = said(capsys, "runs")
    for name in ("first", "second"):
        losses = [row.val_loss for row in metrics.read(folder / "runs" / name) if row.val_loss]
        row = rf"{name} +1,000 +text\.txt +10 of 10 +{losses[-1]:.4f} +{min(losses):.4f} +\w+"
        assert re.search(row, out), (row, out)


def test_some_runs_are_compared_by_the_settings_that_differ(
    capsys: pytest.CaptureFixture[str],
) -> None:
    train_two(capsys)
    out = said(capsys, "runs", "first", "runs/second")
    assert re.search(r"setting +first +second\nseed +1 +2\n*$", out), out
    assert "n_layer" not in out
    assert "their settings are the same" in said(capsys, "runs", "first", "first")


def test_a_run_that_has_just_begun_is_listed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_two(capsys)
    (folder / "runs" / "new").mkdir()
    config = (folder / "runs" / "first" / "config.json").read_bytes()
    (folder / "runs" / "new" / "config.json").write_bytes(config)
    assert re.search(r"new +text\.txt +0 of 10 +\w+", said(capsys, "runs"))


def test_a_damaged_run_is_named_below_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_two(capsys)
    (folder / "runs" / "second" / "config.json").write_text('{"n_layer": [')
    out = said(capsys, "runs")
    assert re.search(r"first +1,000", out)
    assert re.search(r"note +runs/second/config\.json is damaged", out)


def test_without_runs_it_is_said_how_to_make_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no run in runs/; tinygpt train makes one" in error_of(capsys, "runs")
    assert "there is no run nosuch" in error_of(capsys, "runs", "nosuch")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "now"),
        (0.5, "now"),
        (1, "1 s"),
        (59.9, "59 s"),
        (17 * 60 + 5, "17 min"),
        (3600, "1 h"),
        (200_000, "2 d"),
    ],
)
def test_an_age_is_in_its_largest_unit(seconds: float, words: str) -> None:
    assert age_in_words(seconds) == words


WIDE_ROW = [
    *("a-run-with-a-long-name", "10,795,776", "tinyshakespeare.txt", "5,000 of 5,000"),
    *("1.4697", "1.4697", "17 min"),
]


def shown(terminal: bool) -> list[str]:
    """The lines of a table that is wider than 80 columns."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, color_system=None, width=80)
    show(COLUMNS, [WIDE_ROW], console)
    return out.getvalue().splitlines()


def test_a_table_in_a_pipe_has_one_line_for_each_run() -> None:
    header, row = shown(terminal=False)
    assert row.split() == " ".join(WIDE_ROW).split()
    assert len(header) == len(row) > 80


def test_steps_and_ages_stay_on_one_line_of_a_terminal() -> None:
    lines = shown(terminal=True)
    assert max(map(len, lines)) <= 80
    for cell in ("5,000 of 5,000", "17 min"):
        assert any(cell in line for line in lines), lines
