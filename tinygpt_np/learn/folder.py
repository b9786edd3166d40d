"""The learner's folder: a file for each exercise, and progress.json."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock

from tinygpt_np.learn.course import Exercise, course
from tinygpt_np.learn.judge import Verdict
from tinygpt_np.learn.skeleton import skeleton
from tinygpt_np.storage.files import FileError, create_file, make_folder, write_file

FOLDER, PROGRESS, LOCK = Path("learn"), "progress.json", ".progress.lock"
VERSION = 1


@dataclass(frozen=True)
class Record:
    """The progress of an exercise.

    right: the lines that were right at the last check. asked: all lines of the exercise. done: when
    it was solved first, or "". hints: the number of hints shown for each line, by the text to the
    left of its equals sign. solutions: how many solutions of lines were shown.
    """

    right: int = 0
    asked: int = 0
    done: str = ""
    hints: dict[str, int] = field(default_factory=dict[str, int])
    solutions: int = 0


Progress = dict[str, Record]


def read_progress(folder: Path = FOLDER) -> Progress:
    """Return the records by exercise. Raise FileError if the file cannot be read."""
    path = folder / PROGRESS
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["version"] != VERSION:
            raise ValueError
        return {name: record_of(fields) for name, fields in data["exercises"].items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FileError(
            f"{path} is not a file of tinygpt learn (version {VERSION}); move it away to go on"
        ) from None


def record_of(fields: dict[str, Any]) -> Record:
    """Return a record with fields that were read. Raise an exception if they have another type."""
    found = Record(**fields)
    numbers = [found.right, found.asked, found.solutions, *found.hints.values()]
    is_counted = all(type(number) is int and number >= 0 for number in numbers)
    if not is_counted or type(found.done) is not str:
        raise ValueError
    return found


@contextmanager
def changed_progress(folder: Path = FOLDER) -> Generator[Progress]:
    """Give the records to be changed, and write them whole when the block ends."""
    make_folder(folder)
    with FileLock(folder / LOCK):  # A --watch and another command may write at the same time.
        progress = read_progress(folder)
        yield progress
        data = {"version": VERSION, "exercises": {n: asdict(r) for n, r in progress.items()}}
        write_file(folder / PROGRESS, (json.dumps(data, indent=1) + "\n").encode())


def record(verdict: Verdict, folder: Path = FOLDER) -> Progress:
    """Record a verdict and return all records. An exercise that was solved once stays done."""
    name = verdict.exercise.name
    with changed_progress(folder) as progress:
        before = progress.get(name, Record())
        now = datetime.now().isoformat(timespec="seconds")
        done = before.done or (now if verdict.ok else "")
        progress[name] = replace(before, right=verdict.right, asked=verdict.asked, done=done)
    return progress


def start(exercise: Exercise, folder: Path = FOLDER) -> Path:
    """Write the file of an exercise. Raise FileError if there is one."""
    path = folder / exercise.file
    if path.exists():
        raise FileError(
            f"{path} exists already: tinygpt learn check checks it, and tinygpt learn reset "
            f"{exercise.name} writes it again"
        )
    create_file(path, skeleton(exercise).encode())
    return path


def reset(exercise: Exercise, folder: Path = FOLDER) -> Path:
    """Write the file of an exercise again, and return the new file that has what it contained."""
    path = folder / exercise.file
    if not path.exists():
        raise FileError(f"there is no {path}; tinygpt learn start {exercise.name} writes it")
    names = (path.with_name(f"{path.name}.old{n or ''}") for n in count())
    kept = next(name for name in names if not name.exists())
    create_file(kept, path.read_bytes())
    write_file(path, skeleton(exercise).encode())
    return kept


def check_place(folder: Path = FOLDER) -> None:
    """Raise FileError if the working directory is the learner's folder itself."""
    if not folder.exists() and Path(PROGRESS).exists():
        raise FileError(f"this is the folder {folder}/ itself; go to the one that contains it")


def started(folder: Path = FOLDER) -> list[Exercise]:
    """Return the exercises that have a file, in the order of the course."""
    return [each for each in course() if (folder / each.file).is_file()]


def last_edited(folder: Path = FOLDER) -> Exercise:
    """Return the exercise whose file was edited last. Raise FileError if there is none."""
    found = started(folder)
    if not found:
        raise FileError(f"there is no exercise in {folder}/; begin with tinygpt learn start")
    return max(found, key=lambda each: (folder / each.file).stat().st_mtime_ns)


def next_exercise(progress: Progress) -> Exercise | None:
    """Return the first exercise that is not done, without those on the side."""
    left = (e for e in course() if not e.is_extra and not progress.get(e.name, Record()).done)
    return next(left, None)


def solved_exercises(folder: Path = FOLDER) -> list[str]:
    """Return the names of the exercises that have been solved; none if there is no record."""
    try:
        return [name for name, record in read_progress(folder).items() if record.done]
    except FileError:
        return []
