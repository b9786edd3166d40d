"""Check a learner's function, which is in a cell of a notebook or in any file."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinygpt_np.learn.attempt import Attempt, attempt
from tinygpt_np.learn.checks import hint_after, judged_apart, next_hint
from tinygpt_np.learn.course import Exercise, find
from tinygpt_np.learn.folder import FOLDER, PROGRESS, Progress, record
from tinygpt_np.learn.result import GivenHint, Result
from tinygpt_np.learn.skeleton import skeleton
from tinygpt_np.storage.files import FileError
from tinygpt_np.study.source.parse import Function, StudyError, find_function
from tinygpt_np.study.source.paths import Namespace
from tinygpt_np.study.source.targets import names_around, source_of

# The comment that names the exercise of a cell.
MARK = "# exercise: {}"
NAMED = re.compile(MARK.format(r"([\w-]+)"))
# The hints given in this process, if this folder has no course to record them in.
GIVEN: Progress = {}


def check_function(backward: Callable[..., Any], name: str | None = None) -> Result:
    """Check a learner's backward; see `tg.learn.check`."""
    try:
        function = inspect.unwrap(backward)
        source = source_of(function)
        exercise = exercise_of(source, name)
    except ValueError as error:  # StudyError is one.
        return Result(problem=str(error))
    file = function.__code__.co_filename
    verdict = judged_apart(exercise, lambda: attempt_of(exercise, function), file)
    try:
        if (folder := course_folder(exercise)) is not None:
            record(verdict, folder)
    except FileError as error:
        return Result(verdict, source.file, f"not recorded: {error}")
    return Result(verdict, source.file)


def hint_for(backward: Callable[..., Any], name: str | None = None) -> Result | GivenHint:
    """Return the next hint for a learner's backward; see `tg.learn.hint`."""
    result = check_function(backward, name)
    verdict = result.verdict
    if verdict is None or result.problem:
        return result
    folder = course_folder(verdict.exercise)
    given = hint_after(GIVEN, verdict) if folder is None else next_hint(verdict, folder)
    return result if given is None else GivenHint(verdict.exercise, given)


def exercise_of(source: Function, name: str | None) -> Exercise:
    """Return the exercise of this name, or of the comment above a function.

    Raise ValueError if there is none.
    """
    above = "\n".join(source.lines[: source.node.lineno])
    names = [*NAMED.findall(above), *([name] if name else [])]
    if not names:
        mark = MARK.format("NAME")
        raise ValueError(
            f"the exercise is not known: write `{mark}` above {source.name}, or give the name, "
            f'as in tg.learn.check({source.name}, "softmax")'
        )
    exercise = find(names[-1])
    if exercise.kind == "training":
        raise ValueError(
            f"{exercise.name} is checked in a terminal: tinygpt learn start {exercise.name}"
        )
    return exercise


def attempt_of(exercise: Exercise, backward: Callable[..., Any]) -> Attempt:
    """Return a function with the forward among its global names, or the forward of the exercise."""
    source, names = source_of(backward), names_around(backward)
    try:
        forward = inspect.unwrap(names["forward"])
        forward_source = source_of(forward)
    except (KeyError, StudyError):
        forward, forward_source = own_forward(exercise)
    names |= {forward_source.name: forward, source.name: backward}
    return attempt(exercise, names, forward_source, source)


def own_forward(exercise: Exercise) -> tuple[Callable[..., Any], Function]:
    """Return the forward of an exercise's file, with its source."""
    text, names = skeleton(exercise), Namespace()
    exec(compile(text, exercise.file, "exec"), names)
    return names["forward"], find_function(text, "forward", exercise.file)


def course_folder(exercise: Exercise) -> Path | None:
    """Return the learner's folder, or None.

    It is in the working directory, or is that directory, as for a notebook in it. It has a record
    of progress or the notebook of the exercise.
    """
    here = Path()
    folders = [FOLDER, *([here] if here.resolve().name == FOLDER.name else [])]
    files = PROGRESS, exercise.notebook
    return next((f for f in folders if any((f / name).is_file() for name in files)), None)
