"""Check the files of a learner's folder, each in a process of its own, and give hints."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tinygpt_np.learn.attempt import Attempt, AttemptError, read_file
from tinygpt_np.learn.cells import EXTRA
from tinygpt_np.learn.course import Exercise, course
from tinygpt_np.learn.folder import (
    FOLDER,
    Progress,
    Record,
    changed_progress,
    read_progress,
    record,
)
from tinygpt_np.learn.hints import STEPS, hints
from tinygpt_np.learn.judge import Verdict, judge, run_once
from tinygpt_np.learn.lines import JudgedLine
from tinygpt_np.learn.sandbox import Limited, SandboxError, run
from tinygpt_np.learn.skeleton import blanks, plain
from tinygpt_np.learn.sources import MODELS, source_of
from tinygpt_np.storage.files import FileError
from tinygpt_np.study.source.parse import find_function


class WatchError(RuntimeError):
    """Files cannot be watched."""


@dataclass(frozen=True)
class Hint:
    """A hint for a line. number: which one of the STEPS hints it is."""

    line: JudgedLine
    number: int
    text: str


def check(exercise: Exercise, folder: Path = FOLDER) -> Verdict:
    """Check the file of an exercise and record the verdict. Raise FileError if there is none."""
    verdict = judged(exercise, folder)
    try:
        record(verdict, folder)
    except OSError as error:  # The verdict can be shown all the same.
        return replace(verdict, note=f"The progress is not recorded: {error.strerror}.")
    return verdict


def judged(exercise: Exercise, folder: Path = FOLDER) -> Verdict:
    """Return the verdict on the file of an exercise, whatever its code does."""
    path = folder / exercise.file
    text, file = read_text(path), str(path)
    return judged_apart(exercise, lambda: read_file(exercise, text, file), file)


def judged_apart(exercise: Exercise, read: Callable[[], Attempt], file: str) -> Verdict:
    """Return the verdict on what `read` returns, in a process of its own.

    file: that of the learner's code, whose line is named if it never ends.
    """

    def work() -> Verdict:
        try:
            attempt = read()
            run_once(attempt)
            with contextlib.redirect_stdout(Limited()):  # Its output is shown once.
                return judge(attempt)
        except AttemptError as error:
            return Verdict(exercise, problem=str(error), line=error.line)

    try:
        verdict, printed = run(work, file)
    except SandboxError as error:
        # The line is shown in front of the problem.
        problem = str(error).removeprefix(f"line {error.line} ")
        return Verdict(exercise, problem=problem, line=error.line)
    return replace(verdict, printed=printed)


def read_text(path: Path) -> str:
    """Return the text of a file. Raise FileError if it cannot be read."""
    if path.exists() and not path.is_file():  # Reading a named pipe would wait for its writer.
        raise FileError(f"{path} is not a file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        command = f"tinygpt learn start {path.stem} writes it"
        raise FileError(f"there is no {path}; {command}") from None
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is not UTF-8 text, at byte {error.start}") from None
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from None


def next_hint(verdict: Verdict, folder: Path = FOLDER) -> Hint | None:
    """Return the next hint for the first open or wrong line, if any, and record it."""
    with changed_progress(folder) as progress:
        return hint_after(progress, verdict)


def hint_after(progress: Progress, verdict: Verdict) -> Hint | None:
    """Return the hint that follows those in the records and add it to them; None if none is left.

    After the last hint, which is the solution, the same one is given again. The one before has the
    remedy of a mistake too.
    """
    exercise, line = verdict.exercise, verdict.to_do
    if line is None or (line.blank < 0 and exercise.kind != "bug"):
        return None
    # The hints of a closed form and of a bug hunt are for the whole function.
    number = 0 if exercise.kind in ("closed", "bug") else line.blank
    before = progress.get(exercise.name, Record(asked=verdict.asked))
    shown = before.hints.get(str(number), 0)
    step = min(shown + 1, STEPS)
    solutions = before.solutions + (step == STEPS > shown)
    given = {**before.hints, str(number): step}
    progress[exercise.name] = replace(before, hints=given, solutions=solutions)
    text = hints(exercise, blanks(exercise)[number])[step - 1]
    mistake, is_model = verdict.mistake, exercise.subject in MODELS
    # A remedy for a model may forget to keep the gradients of the parameters.
    if step == STEPS - 1 and mistake and mistake.line == line and mistake.cause and not is_model:
        text += f"\nLikely cause: {mistake.cause}."
    return Hint(line, step, text)


def solution(exercise: Exercise, folder: Path = FOLDER) -> str:
    """Return the backward of the source in the style of the file, and count it as shown."""
    with changed_progress(folder) as progress:
        before = progress.get(exercise.name, Record(asked=len(blanks(exercise))))
        shown = max(before.solutions, len(blanks(exercise)))
        progress[exercise.name] = replace(before, solutions=shown)
    source = source_of(exercise)
    if exercise.kind != "closed":
        return plain(source.backward)
    text = inspect.getsource(source.module)
    return plain(find_function(text, "backward", source.backward.file))


def edited(folder: Path = FOLDER) -> Iterator[Exercise]:
    """Return each exercise when its file is saved. Raise WatchError without watchfiles."""
    try:
        import watchfiles
    except ImportError:
        raise WatchError(f"--watch needs watchfiles: pip install '{EXTRA}'") from None
    files = {(folder / each.file).resolve(): each for each in course()}
    changes = watchfiles.watch(folder, raise_interrupt=True)
    saved = ({Path(path).resolve() for _, path in each} for each in changes)
    return (
        files[path] for paths in saved for path in sorted(paths & files.keys()) if path.exists()
    )


def as_data(verdicts: Sequence[Verdict], folder: Path = FOLDER) -> dict[str, Any]:
    """Return verdicts as data for JSON, for programs that grade exercises."""
    progress = read_progress(folder)
    return {
        "ok": all(verdict.ok for verdict in verdicts),
        "exercises": [as_entry(verdict, progress) for verdict in verdicts],
    }


def as_entry(verdict: Verdict, progress: Progress) -> dict[str, Any]:
    """Return one verdict as data."""
    exercise, mistake = verdict.exercise, verdict.mistake
    record = progress.get(exercise.name, Record())
    lines = [
        {"line": each.number, "status": each.status, "text": each.text} for each in verdict.lines
    ]
    return {
        "name": exercise.name, "level": exercise.level, "ok": verdict.ok, "right": verdict.right,
        "asked": verdict.asked, "lines": lines, "problem": verdict.problem,
        "mistake": mistake and {
            "line": mistake.line.number, "message": mistake.message, "cause": mistake.kind,
        },
        "hints": sum(record.hints.values()), "solutions": record.solutions, "done": record.done,
    }  # fmt: skip
