"""Checks of attempts: what the source says is right, and open lines hide no mistake in others."""

import pytest
from helpers.learners import planted, solved, verdict_on

from tinygpt_np.learn.course import course
from tinygpt_np.learn.skeleton import blanks, skeleton

WRITTEN = ("lines", "closed")


@pytest.mark.parametrize("name", [each.name for each in course() if each.kind in WRITTEN])
def test_every_line_of_a_new_file_is_open_and_nothing_is_wrong(name: str) -> None:
    exercise = next(each for each in course() if each.name == name)
    found = verdict_on(name, skeleton(exercise))
    assert [line.name for line in found.open_lines] == [
        ", ".join(b.names) for b in blanks(exercise)
    ]
    assert found.mistake is None
    assert found.right == 0


@pytest.mark.parametrize(
    ("name", "line", "forward"),
    [
        ("softmax", "dexps += dtotal", "total = exps.sum(axis=-1, keepdims=True)"),
        ("reused", "dx += dsquare * 2 * x", "square = x * x"),
    ],
)
def test_a_missing_line_is_one_of_the_exercise_and_its_forward_line_has_the_number_in_the_file(
    name: str, line: str, forward: str
) -> None:
    text, _ = planted(solved(name), line, "")
    found = verdict_on(name, text)
    assert found.mistake is not None
    missing = found.mistake.line
    assert missing.status == "missing"
    exercise = next(each for each in course() if each.name == name)
    assert blanks(exercise)[missing.blank].solution.startswith(line)
    number = next(n for n, each in enumerate(text.splitlines(), 1) if forward in each)
    assert f"through line {number}, {forward}" in found.mistake.message


def test_a_wrong_line_is_found_while_the_lines_before_and_after_it_are_open() -> None:
    text, line = planted(
        solved("layer_norm", but=range(0, 13, 2)),
        "dstd = -(dxhat * xhat / std).sum(axis=-1, keepdims=True)",
        "dstd = (dxhat * xhat / std).sum(axis=-1, keepdims=True)",
    )
    found = verdict_on("layer_norm", text)
    assert found.mistake is not None
    assert found.mistake.line.number == line
    assert {each.status for each in found.lines if each.number != line} == {"open", "right"}
