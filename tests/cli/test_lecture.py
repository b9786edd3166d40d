"""tinygpt lecture, as a person uses it."""

import re

import pytest
from cli.running import error_of

from tinygpt_np import cli


def test_the_lecture_lists_its_chapters(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["lecture"])
    assert re.search(r"4 +bigram +00:22:11", capsys.readouterr().out)


def test_an_unknown_chapter_lists_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no chapter trigram; there are: 1 reading" in error_of(
        capsys, "lecture", "trigram"
    )
