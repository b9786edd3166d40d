"""The exercises of the course."""

import re
from collections import Counter
from pathlib import Path

import pytest

from tinygpt_np import learn, ops
from tinygpt_np.learn import warm_ups
from tinygpt_np.learn.course import LEVELS, TRAINED, course, find


def test_every_warm_up_and_every_operation_has_an_exercise() -> None:
    subjects = {each.subject for each in course()}
    assert {*warm_ups.__all__, *ops.__all__, "block", "gpt", "micro_batches"} <= subjects


def test_levels_are_in_order_and_each_has_exercises() -> None:
    levels = [each.level for each in course()]
    assert levels == sorted(levels)
    assert {*levels} == {*LEVELS}


def test_there_are_forty_bugs_and_one_exercise_that_trains() -> None:
    kinds = Counter(each.kind for each in course())
    assert (kinds["bug"], kinds["training"], kinds["closed"]) == (40, 1, 3)


def test_a_name_is_found_as_people_write_it() -> None:
    names = [each.name for each in course()]
    assert len(names) == len({*names})
    for each in course():
        assert find(each.name) is find(each.file) is find(each.name.replace("_", "-")) is each


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sofmax", "there is no exercise sofmax; did you mean softmax?"),
        ("../x", "there is no exercise ../x; tinygpt learn lists them"),
        ("", "there is no exercise ; tinygpt learn lists them"),
    ],
)
def test_what_is_close_to_an_unknown_name_is_said(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^there is no exercise") as raised:
        find(name)
    assert str(raised.value) == message


def test_the_last_exercise_trains_with_exercises_that_the_course_requires() -> None:
    for name in TRAINED:
        assert find(name).kind == "lines"
        assert not find(name).is_extra


def test_the_readme_says_how_many_exercises_there_are_and_has_every_level() -> None:
    text = (Path(learn.__file__).parent / "README.md").read_text(encoding="utf-8")
    assert f"a course in {len(course())} exercises" in text
    rows = re.findall(r"^\| (\d) \| ([a-z -]+) \|", text, re.M)
    assert [int(level) for level, _ in rows] == [*LEVELS]
    for level, title in rows:
        assert LEVELS[int(level)].startswith(title)
