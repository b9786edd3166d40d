"""A learner plays the course: starts each exercise, is told what is open, solves it, and trains."""

from pathlib import Path

import pytest
from helpers.learners import finished

from tinygpt_np.learn import checks, folder, training
from tinygpt_np.learn.course import LEVELS, course

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("level", [level for level in LEVELS if level < 6])
def test_every_exercise_of_a_level_is_open_at_first_and_solved_by_its_solution(
    level: int, tmp_path: Path
) -> None:
    for exercise in (each for each in course() if each.level == level):
        path = folder.start(exercise, tmp_path)
        found = checks.check(exercise, tmp_path)
        assert not found.ok
        assert found.problem == ""
        assert found.mistake is None
        path.write_text(finished(exercise), encoding="utf-8")
        found = checks.check(exercise, tmp_path)
        assert found.ok, (exercise.name, found.mistake, found.note, found.problem)
        assert found.right == found.asked
    progress = folder.read_progress(tmp_path)
    assert all(progress[each.name].done for each in course() if each.level == level)


def test_after_the_exercises_that_it_needs_nothing_is_left_before_training(tmp_path: Path) -> None:
    for name in training.TRAINED:
        exercise = next(each for each in course() if each.name == name)
        (tmp_path / exercise.file).write_text(finished(exercise), encoding="utf-8")
    assert training.missing(tmp_path) == []
