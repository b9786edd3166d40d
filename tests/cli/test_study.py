"""Tests of the command tinygpt study."""

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from helpers.commands import Captured, error_of, output_of
from helpers.user_layer import (
    LAYER_FORWARD,
    RIGHT_LAYER,
    WRONG_BACKWARD,
    WRONG_LAYER,
    WRONG_LINE,
    write_layer,
)

from tinygpt_np import cli
from tinygpt_np.learn.folder import Record, changed_progress
from tinygpt_np.study.render import site
from tinygpt_np.study.source import targets


def test_targets_are_listed_and_shown_and_a_line_in_detail(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = output_of(capsys, "study")
    assert all(name in out for name in targets.NAMES)
    assert "tinygpt study mylayer.py:forward,backward" in out
    assert "rule of line 27: matrix product" in output_of(capsys, "study", "linear", "--line", "41")
    out = output_of(capsys, "study", "linear", "--seed", "5")
    assert "seed=5" in out
    assert "linear-no-bias: 3 gradients checked, all right" in out
    assert out != output_of(capsys, "study", "linear")
    monkeypatch.setattr(targets, "NAMES", ("linear", "bigram"))
    assert output_of(capsys, "study", "--all").count("all right") == 2


def test_a_wrong_user_layer_exits_with_1(folder: Path, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["study", write_layer(folder, WRONG_LAYER)])
    assert stop.value.code == 1
    assert (
        "likely cause: a path is missing: dx lacks the part through `mean`"
        in capsys.readouterr().out
    )


def test_the_arguments_of_a_user_layer_can_be_described(folder: Path, capsys: Captured) -> None:
    described = "x (N, C), weight (C,), bias (C,)"
    text = RIGHT_LAYER.replace(f'"""{described} -> y (N, C)"""', "")
    assert "all right" in output_of(capsys, "study", write_layer(folder, text), "--args", described)


def test_pages_mark_what_the_reader_has_solved_in_the_folder_next_to_them(
    folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "NAMES", ("linear", "bigram"))
    with changed_progress(folder / "learn") as progress:
        progress["linear"] = Record(done="2026-01-01T00:00:00")
        progress["bigram"] = Record(right=1, asked=2)
    output_of(capsys, "study", "--all", "--html", "pages")
    text = {path.stem: path.read_text("utf-8") for path in (folder / "pages").glob("*.html")}
    assert text["index"].count("written by you") == 1
    assert "You have written this backward yourself." in text["linear"]
    assert "yourself" not in text["bigram"].partition("</header>")[0]


@pytest.mark.slow
def test_pages_are_written_to_a_new_folder_in_the_order_of_the_targets(
    folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = output_of(capsys, "study", "linear", "--html", "pages")
    assert out.split() == ["written", "pages/linear.html"]
    assert "dproduct" in (folder / "pages" / "linear.html").read_text(encoding="utf-8")
    monkeypatch.setattr(targets, "NAMES", ("linear", "bigram"))
    out = output_of(capsys, "study", "--all", "--html", "all")
    assert out.split() == ["written", "all/index.html"]
    index = (folder / "all" / "index.html").read_text(encoding="utf-8")
    assert index.index("linear.html") < index.index("bigram.html")


@pytest.mark.parametrize(
    "line",
    [
        "dx = dxhat * np.nan", "dx = dxhat.sum(axis=0)", "dx = None", "dx = dxhat @ dxhat",
        "dxhat = dxhat * 1e300 * 1e300; dx = dxhat",
    ],
)  # fmt: skip
def test_a_page_can_be_written_for_any_mistake(folder: Path, line: str) -> None:
    text = LAYER_FORWARD + WRONG_BACKWARD.replace(WRONG_LINE, line)
    with pytest.raises(SystemExit) as stop, np.errstate(all="ignore"):
        cli.main(["study", write_layer(folder, text), "--html", "pages"])
    assert stop.value.code == 1
    assert len(list((folder / "pages").glob("*.html"))) == 2


def test_a_folder_is_refused_before_the_work_and_removed_after_an_interrupt(
    folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "write_files", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["study", "linear", "--html", "pages"])
    assert stopped.value.code == 130
    assert not (folder / "pages").exists()
    monkeypatch.setattr(site, "make_pages", None)
    assert "cannot be created" in error_of(capsys, "study", "linear", "--html", "text.txt/pages")
