"""A learner plays the course: starts each exercise, is told what is open, solves it, and trains."""

from pathlib import Path

import pytest
from helpers.learners import finished
from helpers.sample import sampled

from tinygpt_np.learn import checks, folder, training
from tinygpt_np.learn.course import LEVELS, course

# One in four exercises of the last levels is played, other ones each day.
EVERY = 4

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("level", [level for level in LEVELS if level < 6])
def test_every_exercise_of_a_level_is_open_at_first_and_solved_by_its_solution(
    level: int, tmp_path: Path
) -> None:
    exercises = [each for each in course() if each.level == level]
    # Those of the last levels take a second or several each.
    for exercise in sampled(exercises, EVERY) if level > 3 else exercises:
        path = folder.start(exercise, tmp_path)
        found = checks.check(exercise, tmp_path)
        assert not found.ok
        assert found.problem == ""
        assert found.mistake is None
        path.write_text(finished(exercise), encoding="utf-8")
        found = checks.check(exercise, tmp_path)
        assert found.ok, (exercise.name, found.mistake, found.note, found.problem)
        assert found.right == found.asked
        assert folder.read_progress(tmp_path)[exercise.name].done


def test_after_the_exercises_that_it_needs_nothing_is_left_before_training(tmp_path: Path) -> None:
    for name in training.TRAINED:
        exercise = next(each for each in course() if each.name == name)
        (tmp_path / exercise.file).write_text(finished(exercise), encoding="utf-8")
    assert training.missing(tmp_path) == []
