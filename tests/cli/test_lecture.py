"""`tinygpt lecture`: chapters are listed, introduced and run."""

import re
from pathlib import Path

import pytest
from helpers.commands import Captured

from tinygpt_np import cli, lecture
from tinygpt_np.lecture import Chapter


def test_the_lecture_lists_its_chapters(capsys: Captured) -> None:
    cli.main(["lecture"])
    assert re.search(r"4 +bigram +00:22:11", capsys.readouterr().out)


def print_numbers(chapter: Chapter) -> None:
    """Replace lecture.run, which takes seconds."""
    print("its numbers")


@pytest.mark.parametrize("chapter", lecture.chapters(), ids=lambda chapter: chapter.name)
def test_a_chapter_is_introduced_with_its_place_in_the_video_and_its_source(
    chapter: Chapter, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lecture, "run", print_numbers)
    monkeypatch.setenv("COLUMNS", "100")
    texts: list[str] = []
    for name in (chapter.name, str(chapter.number)):
        cli.main(["lecture", name])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    head, rest = texts[0].split("\n", 1)
    assert head.strip("─ ") == f"{chapter.number}  {chapter.title}"
    video, source = re.findall(r"^(?:video|source) +(.*?) *$", rest, re.MULTILINE)
    assert video == ("not in it" if chapter.name == "adder" else chapter.timestamp)
    assert Path(source).samefile(chapter.path)
    words = " ".join(rest.split())
    assert chapter.about
    for paragraph in chapter.about:
        assert len(paragraph) > 60
        assert " ".join(paragraph.split()) in words
    assert words.endswith("its numbers")


def test_all_runs_every_chapter(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lecture, "run", print_numbers)
    cli.main(["lecture", "--all"])
    together = capsys.readouterr().out
    for chapter in lecture.chapters():
        cli.main(["lecture", chapter.name])
    assert capsys.readouterr().out == together
