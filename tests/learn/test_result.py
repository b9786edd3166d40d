"""The verdict on a learner's function and a hint, as text and as HTML."""

import re
from dataclasses import replace

import numpy as np
import pytest
from helpers.cells import defined, written
from helpers.html_pages import Page, html_of

import tinygpt_np as tg
from tinygpt_np.learn.checks import Hint
from tinygpt_np.learn.course import find
from tinygpt_np.learn.hints import STEPS
from tinygpt_np.learn.judge import Verdict
from tinygpt_np.learn.lines import JudgedLine, Mistake
from tinygpt_np.learn.result import GivenHint, Result

EVIL = "dx = dx  # <script>alert(1)</script> & `code`"
LINE = JudgedLine(3, EVIL, "wrong", "dx", EVIL, EVIL)
MISTAKE = Mistake(LINE, EVIL, EVIL, np.ones((2, 3)), np.zeros((2, 3)), (1, 2), (2, 3), EVIL)
VERDICT = Verdict(find("softmax"), (LINE,), MISTAKE, note=EVIL, printed=EVIL)
EVERY = [
    Result(VERDICT, EVIL),
    Result(replace(VERDICT, mistake=replace(MISTAKE, line=replace(LINE, status="luck")))),
    Result(replace(VERDICT, mistake=replace(MISTAKE, found=np.ones(5)))),
    Result(Verdict(find("softmax"), problem=EVIL, line=3), EVIL),
    Result(problem=EVIL),
    GivenHint(find("softmax"), Hint(LINE, 1, EVIL)),
    GivenHint(find("softmax"), Hint(LINE, STEPS, EVIL)),
]


def checked(name: str, *changes: tuple[str, str]) -> Result:
    """Return the result for the lines of the source with changes."""
    return tg.learn.check(defined(name, written(name, *changes)))


@pytest.mark.parametrize("result", EVERY)
def test_the_page_escapes_what_a_learner_wrote_and_closes_its_tags(
    result: Result | GivenHint,
) -> None:
    html = html_of(result)
    assert "<script" not in html
    page = Page(html)
    assert (page.open, page.loaded) == ([], [])
    assert page.text.count("<script>alert(1)</script> &") >= 2  # In the text, and in the page.


def shown(result: Result | GivenHint) -> str:
    """Return the words of a page, without the text for notebooks that remove its style."""
    _, _, body = html_of(result).partition('<div class="body" style="display: none">')
    return Page(body.removesuffix("\n</div>\n</div>")).text


def test_an_open_exercise_shows_its_lines_and_the_first_one_to_write() -> None:
    result = tg.learn.check(defined("broadcast"))
    assert not result.ok
    assert str(result).splitlines()[0] == "broadcast, level 1: 0 of 4 lines"
    assert str(result).count("· open") == 4
    assert "next: write line 6, run its cell" in str(result)


def test_a_solved_exercise_names_the_calls_and_the_next_one() -> None:
    result = checked("broadcast")
    html = html_of(result)
    assert result.ok
    assert html.count('class="left right">✓ right') == 4
    assert re.search(r"✓ solved: the whole function is right in \d+ calls", html)
    assert "next: `tinygpt learn notebook mean`" in str(result)


def test_a_wrong_line_is_shown_with_both_values_a_cause_and_heat_maps() -> None:
    result = checked("broadcast", ("dx = dscaled * scale", "dx = dscaled / scale"))
    html = html_of(result)
    for name in ("problem dx: off by", "yours", "measured", "likely cause divided, not multiplied"):
        assert name in Page(html).text
        assert name.partition(" ")[0] in str(result)
    assert html.count("<figure>") == 3
    assert html.count('<tr class="is-wrong">') == 1
    assert "next: repair line 9" in str(result)


def test_a_wrong_shape_is_shown_with_the_one_that_is_wanted_and_without_heat_maps() -> None:
    result = checked("broadcast", ("dbias = dy.sum(axis=0)", "dbias = dy.sum(axis=1)"))
    assert "wanted shape (8,)" in shown(result)
    assert "<figure>" not in html_of(result)


def test_a_missing_line_is_shown_with_the_forward_line_that_it_reverses() -> None:
    result = checked("softmax", ("    dexps += dtotal  # (..., V)\n", ""))
    assert "after line 9: dexps += … dexps lacks the part through line 11, total" in shown(result)
    assert "next: add a line after line 9" in str(result)


def test_a_line_that_is_right_by_luck_is_shown_with_the_call_for_which_it_is_wrong() -> None:
    result = checked("softmax", ("sum(axis=-1, keepdims", "sum(axis=2, keepdims"))
    assert "right by luck right in the first call, wrong for x (6, 11)" in shown(result)


def test_what_the_code_prints_is_shown_once() -> None:
    result = checked("softmax", ("    return dx", "    print('shape', dx.shape)\n    return dx"))
    assert "your code printed shape (2, 3, 11)" in shown(result)
    assert shown(result).count("shape (") == 1


def test_hints_come_one_after_another_and_the_last_one_is_code() -> None:
    backward = defined("exp")
    hints = [tg.learn.hint(backward) for _ in range(STEPS + 1)]
    texts = [str(hint).splitlines()[0] for hint in hints]
    numbers = [*range(1, STEPS + 1), STEPS]
    assert texts == [f"exp, line 6, hint {number} of {STEPS}" for number in numbers]
    assert "<code>dtotal = dy / total  # (N,)</code>" in html_of(hints[-1])
    assert str(hints[-1]).endswith("dtotal = dy / total  # (N,)")
