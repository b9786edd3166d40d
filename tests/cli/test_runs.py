"""tinygpt runs, as a person uses it."""

import re
from pathlib import Path

import pytest
from cli.running import error_of, said, train_tiny

from tinygpt_np import metrics
from tinygpt_np.cli.runs import age_in_words


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
        (1, "1 second ago"),
        (59.9, "59 seconds ago"),
        (3600, "1 hour ago"),
        (90000, "1 day ago"),
    ],
)
def test_an_age_is_in_its_largest_unit(seconds: float, words: str) -> None:
    assert age_in_words(seconds) == words
