"""`tinygpt lecture`: chapters are listed, introduced and run."""

import re
import sys
from pathlib import Path

import pytest
from helpers.commands import Captured, error_of, output_of
from helpers.optional import needs
from rich.console import Console

from tinygpt_np import lecture
from tinygpt_np.lecture import Chapter


def test_the_lecture_lists_its_chapters(capsys: Captured) -> None:
    assert re.search(r"4 +bigram +00:22:11", output_of(capsys, "lecture"))


def test_a_chapter_is_introduced_with_its_place_in_the_video_and_its_source(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def print_numbers(chapter: Chapter, console: Console) -> None:
        print("its numbers")

    monkeypatch.setattr(lecture, "run", print_numbers)  # The chapters take seconds.
    together = ""
    for chapter in lecture.chapters():
        out = output_of(capsys, "lecture", chapter.name)
        assert out == output_of(capsys, "lecture", str(chapter.number))
        together += out
        head, rest = out.split("\n", 1)
        assert head.strip("─ ") == f"{chapter.number}  {chapter.title}"
        video, source = re.findall(r"^(?:video|source) +(.*?) *$", rest, re.MULTILINE)
        assert video == ("not in it" if chapter.name == "adder" else chapter.timestamp)
        assert Path(source).samefile(chapter.path)
        words = " ".join(rest.split())
        assert chapter.about
        for paragraph in chapter.about:
            assert " ".join(paragraph.split()) in words
        assert words.endswith("its numbers")
    assert output_of(capsys, "lecture", "--all") == together


def test_chapters_are_written_as_notebooks(capsys: Captured, folder: Path) -> None:
    needs("nbformat")
    out = output_of(capsys, "lecture", "bigram", "--notebook", "books")
    assert out == "written  books/04_bigram.ipynb\n"
    assert [path.name for path in (folder / "books").iterdir()] == ["04_bigram.ipynb"]
    for path in (folder / "books").iterdir():
        path.unlink()
    assert output_of(capsys, "lecture", "--notebook", "books").count("written") == 19
    assert len([*(folder / "books").iterdir()]) == 19


def test_a_notebook_is_never_overwritten(capsys: Captured, folder: Path) -> None:
    needs("nbformat")
    (folder / "05_training.ipynb").write_text("mine")
    message = error_of(capsys, "lecture", "--notebook", ".")
    assert message == "tinygpt: 05_training.ipynb exists already, and nothing is overwritten"
    assert (folder / "05_training.ipynb").read_text() == "mine"
    assert not [*folder.glob("04*")]


def test_a_notebook_without_nbformat_is_explained(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nbformat", None)
    message = error_of(capsys, "lecture", "bigram", "--notebook", "books")
    assert "needs nbformat: pip install 'tinygpt-np[learn]'" in message
