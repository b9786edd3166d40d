"""`tinygpt lecture`: chapters are listed, introduced and run."""

import re
from pathlib import Path

import pytest
from helpers.commands import Captured, output_of

from tinygpt_np import lecture
from tinygpt_np.lecture import Chapter


def test_the_lecture_lists_its_chapters(capsys: Captured) -> None:
    assert re.search(r"4 +bigram +00:22:11", output_of(capsys, "lecture"))


def test_a_chapter_is_introduced_with_its_place_in_the_video_and_its_source(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def print_numbers(chapter: Chapter) -> None:
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
