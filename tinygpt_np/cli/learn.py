"""`tinygpt learn`: write backwards yourself, checked line by line."""

import json
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from rich.syntax import Syntax

from tinygpt_np.cli.flags import Argument, Switch
from tinygpt_np.storage.files import FileError

if TYPE_CHECKING:  # Importing them takes half a second, which other commands need not spend.
    from tinygpt_np.learn.course import Exercise
    from tinygpt_np.learn.judge import Verdict

ACTIONS = ("start", "check", "hint", "solution", "reset", "notebook")


@dataclass(frozen=True, kw_only=True)
class Learn:
    """Write every backward yourself, checked line by line.

    Without ACTION, the map of the exercises is shown. start writes learn/EXERCISE.py, check checks
    it, hint gives the next of four hints, solution shows the lines of the source, reset starts
    again, and notebook writes the exercise as a notebook. Without EXERCISE, start takes the next
    one of the course, and the others the one that was edited last.
    """

    action: Annotated[str | None, Argument("ACTION", positional=True)] = None
    """start, check, hint, solution, reset or notebook."""
    exercise: Annotated[str | None, Argument("EXERCISE", positional=True)] = None
    """Its name, as in the map."""
    all: Switch = False
    """With check: all exercises that have a file; exit with 1 unless all are solved."""
    json: Switch = False
    """With check: print the verdicts as JSON."""
    watch: Switch = False
    """With check: check every file when it is saved, until Ctrl-C."""
    yes: Switch = False
    """With reset: do not ask."""

    def __post_init__(self) -> None:
        if self.action is not None and self.action not in ACTIONS:
            raise ValueError(f"ACTION must be one of {', '.join(ACTIONS)}, not {self.action}")
        for name, action in (
            ("all", "check"),
            ("json", "check"),
            ("watch", "check"),
            ("yes", "reset"),
        ):
            if getattr(self, name) and self.action != action:
                raise ValueError(f"--{name} goes with {action}")
        if self.all and self.exercise is not None:
            raise ValueError(f"--all checks every exercise; leave out {self.exercise} or --all")
        if self.watch and (self.all or self.json):
            raise ValueError("--watch goes with neither --all nor --json")

    # The modules are imported in the functions, because starting another command must stay fast.

    def execute(self, console: Console) -> None:
        """Show the map, or do what is asked for."""
        from tinygpt_np.learn.folder import check_place

        check_place()
        if self.action is not None and self.exercise == "training":
            train(self.action, console)
            return
        match self.action:
            case None:
                show_map(console)
            case "start":
                start(self.exercise, console)
            case "check" if self.watch:
                watch(console)
            case "check":
                check(self.chosen(), self.json, console)
            case "hint":
                hint(self.one(), console)
            case "solution":
                solution(self.one(), console)
            case "reset":
                reset(self.one(), self.yes, console)
            case _:
                notebook(self.one(), console)

    def one(self) -> "Exercise":
        """Return the exercise that is named, or the one edited last."""
        from tinygpt_np.learn import course, folder

        return folder.last_edited() if self.exercise is None else course.find(self.exercise)

    def chosen(self) -> "list[Exercise]":
        """Return the exercises to check."""
        from tinygpt_np.learn import folder

        if not self.all:
            return [self.one()]
        if found := folder.started():
            return found
        raise ValueError(
            f"there is no exercise in {folder.FOLDER}/; begin with tinygpt learn start"
        )


def show_map(console: Console) -> None:
    """Show the course and what is done."""
    from tinygpt_np.learn.folder import read_progress
    from tinygpt_np.learn.terminal import draw_map

    console.print(draw_map(read_progress()))


def start(name: str | None, console: Console) -> None:
    """Write the file of an exercise."""
    from tinygpt_np.learn import course, folder
    from tinygpt_np.learn.skeleton import blanks

    exercise = course.find(name) if name else folder.next_exercise(folder.read_progress())
    if exercise is None:
        console.print("The course is finished.")
        return
    path = folder.start(exercise)
    if exercise.kind == "bug":
        size, task = "one line is wrong", "put `# bug` at the end of the wrong line"
    else:
        size, task = f"{len(blanks(exercise))} lines to write", "replace every `...`"
    console.print(f"written  {path}, {size}", soft_wrap=True)
    console.print(f"Open it in your editor and {task}. Then:", markup=False)
    console.print("  tinygpt learn check          checks it; --watch does so on every save")
    console.print("  tinygpt learn hint           a hint for the first line that is open or wrong")


def check(exercises: "list[Exercise]", as_json: bool, console: Console) -> None:
    """Check some exercises, and exit with 1 unless all are solved."""
    from tinygpt_np.learn import checks

    verdicts: list[Verdict] = []
    for exercise in exercises:
        verdicts.append(checks.check(exercise))
        if not as_json:
            show(verdicts[-1], console, in_brief=len(exercises) > 1)
    solved = sum(verdict.ok for verdict in verdicts)
    if as_json:
        sys.stdout.write(json.dumps(checks.as_data(verdicts), indent=1) + "\n")
    elif len(verdicts) > 1:
        console.print(f"{solved} of {len(verdicts)} exercises are solved")
    if solved < len(verdicts):
        sys.exit(1)


def train(action: str, console: Console) -> None:
    """Train with the learner's functions, and exit with 1 unless the loss is as expected."""
    from tinygpt_np.learn import course, folder, training

    if action != "check":
        names = ", ".join(course.TRAINED)
        raise ValueError(
            f"training has no file: tinygpt learn check training trains a GPT with your {names}"
        )
    verdict = training.train(folder.FOLDER, console)
    folder.record(verdict)
    if verdict.problem:
        raise ValueError(verdict.problem)
    console.print("✓ solved. Every gradient of this training was computed by your code.")


def show(verdict: "Verdict", console: Console, in_brief: bool = False) -> None:
    """Show a verdict with its lines, or in one line."""
    from tinygpt_np.learn.folder import next_exercise, read_progress
    from tinygpt_np.learn.terminal import draw, in_one_line, what_next

    coming = next_exercise(read_progress())
    next_step = what_next(verdict, coming.name if coming else "")
    console.print(in_one_line(verdict) if in_brief else draw(verdict, next_step))


def watch(console: Console) -> None:
    """Check each file when it is saved, until Ctrl-C."""
    from tinygpt_np.learn import checks
    from tinygpt_np.learn.folder import FOLDER, make_folder

    make_folder(FOLDER)
    edited = checks.edited(FOLDER)
    console.print(f"watching {FOLDER}/; Ctrl-C ends")
    for exercise in edited:
        console.rule(f"{exercise.name}  {datetime.now():%H:%M:%S}", align="left")
        try:
            show(checks.check(exercise), console)
        except FileError as error:  # The file may be saved again.
            console.print(str(error), markup=False)


def hint(exercise: "Exercise", console: Console) -> None:
    """Show the next hint for the first line that is open or wrong."""
    from tinygpt_np.learn import checks
    from tinygpt_np.learn.terminal import draw_hint

    verdict = checks.check(exercise)
    given = checks.next_hint(verdict)
    if given is None:
        show(verdict, console)
        return
    console.print(draw_hint(exercise, given))


def solution(exercise: "Exercise", console: Console) -> None:
    """Show the backward of the source, and count it as shown."""
    from tinygpt_np.learn import checks

    text = Syntax("", "python", theme="ansi_dark").highlight(checks.solution(exercise))
    console.print(text, soft_wrap=True)  # So that it can be pasted.


def reset(exercise: "Exercise", yes: bool, console: Console) -> None:
    """Write the file of an exercise again, if the user agrees."""
    from tinygpt_np.learn import folder

    path = folder.FOLDER / exercise.file
    if not yes and path.exists():
        if not sys.stdin.isatty():
            raise ValueError(
                f"tinygpt learn reset {exercise.name} asks first; without a terminal, add --yes"
            )
        answer = console.input(f"Write {path} again? What it contains is kept. \\[y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            console.print("Nothing was changed.")
            return
    kept = folder.reset(exercise)
    console.print(f"written  {path}; what it contained is in {kept}", soft_wrap=True)


def notebook(exercise: "Exercise", console: Console) -> None:
    """Write the notebook of an exercise."""
    from tinygpt_np.learn import folder
    from tinygpt_np.learn.notebook import write

    console.print(f"written  {write(exercise, folder.FOLDER)}", soft_wrap=True)
