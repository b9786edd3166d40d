"""Check a learner's backward: each line given right inputs, then the function as a whole.

The lines are checked in one call: see lines.py. When every line is right, the whole function is
called in other ways: see whole.py. A line that was right for one call only is right by luck.
"""

import ast
import contextlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinygpt_np.learn.attempt import Attempt, AttemptError, copied, described
from tinygpt_np.learn.course import Exercise
from tinygpt_np.learn.lines import JudgedLine, Lines, LineStatus, Mistake, open_line
from tinygpt_np.learn.skeleton import blanks
from tinygpt_np.learn.sources import targets_of
from tinygpt_np.learn.whole import Failure, first_failure, gradients
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.source.parse import StudyError
from tinygpt_np.study.source.targets import Target

# Messages about the line that a learner thinks has the bug.
UNMARKED = (
    "Put the comment `# bug` at the end of the line that you think is wrong, and check again."
)
SEVERAL = "More than one line has the comment `# bug`; one line is wrong."
OTHER = "Line {} is not the wrong one."
FOUND = "Line {} is the wrong one. Repair it, keep the comment, and check again."
REPAIRED = "backward is right now. Put the comment `# bug` at the end of the line that was wrong."


@dataclass(frozen=True)
class Verdict:
    """The verdict on an attempt.

    lines: in the order of the file. asked: how many lines the exercise asks for. problem: why
    nothing could be checked, or "". line: where. note: what to do next, in a bug hunt.
    """

    exercise: Exercise
    lines: tuple[JudgedLine, ...] = ()
    mistake: Mistake | None = None
    problem: str = ""
    line: int = 0
    calls: int = 0
    note: str = ""
    printed: str = field(default="", compare=False)

    @property
    def ok(self) -> bool:
        """Whether the exercise is solved."""
        return not self.problem and self.mistake is None and not self.open_lines

    @property
    def open_lines(self) -> list[JudgedLine]:
        """The lines that are open."""
        return [line for line in self.lines if line.status == "open"]

    @property
    def to_do(self) -> JudgedLine | None:
        """The first line that is open or wrong."""
        return next((line for line in self.lines if line.status != "right"), None)

    @property
    def asked(self) -> int:
        """The number of lines that the exercise asks for."""
        return len(blanks(self.exercise))

    @property
    def right(self) -> int:
        """The number of these lines that are written and not known to be wrong."""
        if self.problem:
            return 0
        left = {line.blank for line in self.lines if line.status != "right"}
        return self.asked if self.ok else max(0, self.asked - max(len(left), 1))


def judge(attempt: Attempt) -> Verdict:
    """Return the verdict on an attempt, whose functions may raise anything."""
    verdict = judge_formulas(attempt)
    is_hunt = attempt.exercise.bug is not None and not verdict.problem
    return hunted(attempt, verdict) if is_hunt else verdict


def hunted(attempt: Attempt, verdict: Verdict) -> Verdict:
    """Return the verdict on a bug hunt. It says nothing of the bug before its line is found.

    As soon as the learner has found and changed the line, its mistakes are those of any other line.
    """
    marked, line, bug = attempt.marked, attempt.bug_line, attempt.exercise.bug
    if len(marked) > 1:
        note = SEVERAL
    elif verdict.ok and (line is not None or attempt.has_changed_marked_line):
        return verdict  # It may be repaired in another place, too.
    elif line is None:
        note = OTHER.format(marked[0]) if marked else UNMARKED
        note = REPAIRED if verdict.ok else note
    elif bug is not None and ast.unparse(line) == bug.after:
        note = FOUND.format(line.lineno)
    else:
        return verdict
    function = attempt.backward
    whole = JudgedLine(function.node.lineno, function.signature, "open", blank=0)
    return Verdict(attempt.exercise, (whole,), note=note)


def judge_formulas(attempt: Attempt) -> Verdict:
    """Return the verdict on all lines and on the function as a whole."""
    exercise = attempt.exercise
    try:
        target = with_functions(attempt, next(targets_of(exercise)))
        verdict = judge_lines(attempt, target)
    except AttemptError as error:
        return Verdict(exercise, problem=str(error), line=error.line)
    except (StudyError, ValueError, TypeError):
        # These lines cannot be run one by one; the function as a whole can.
        verdict = Verdict(exercise)
        if attempt.open_lines:
            return replace(verdict, lines=tuple(open_line(attempt, n) for n in attempt.open_lines))
    if verdict.mistake is not None:
        return verdict
    failure, calls = first_failure(attempt)
    if failure is None:
        return replace(verdict, calls=calls)
    status: LineStatus = "wrong" if calls == 1 else "luck"
    found, line = explained(attempt, verdict, failure, status), attempt.backward.returned.line
    is_at_a_line = found.mistake is not None and found.mistake.line.number != line
    if attempt.open_lines and (calls == 1 or not is_at_a_line):
        return verdict  # The lines of the source may not fit the others.
    return found


def run_once(attempt: Attempt) -> None:
    """Call the functions of an attempt as Python does, so that what they print is seen once.

    If a line never ends, it is found here, where Python knows its place in the file.
    """
    with contextlib.suppress(Exception):  # Its lines are checked one after another later.
        gradients(next(targets_of(attempt.exercise)), None, attempt.functions[1])


def with_functions(attempt: Attempt, target: Target) -> Target:
    """Return a call of the exercise with the learner's functions.

    Raise AttemptError if a changed forward computes something else.
    """
    module = attempt.module
    if not attempt.is_own_forward or target.kind == "model":
        functions = (target.functions[0], attempt.functions[1]) if target.functions else ()
        # The same lines, with the numbers that they have in the learner's file.
        return replace(target, module=module, forward=attempt.forward, functions=functions)
    line = attempt.forward.node.lineno
    reset = f"tinygpt learn reset {attempt.exercise.name} writes the file again and keeps yours"
    changed = f"forward was changed, and {{}}; {reset}"
    ours = target.functions[0](**target.args)[0]
    try:
        theirs = attempt.functions[0](**copies(target.args))[0]
        is_same = np.shape(theirs) == np.shape(ours) and np.allclose(theirs, ours, 1e-9, 1e-12)
    except Exception as error:
        raise AttemptError(changed.format(described(error)), line) from None
    if not is_same:
        raise AttemptError(changed.format("its output is another one"), line)
    return replace(target, module=module, forward=attempt.forward, functions=attempt.functions)


def copies(args: dict[str, Any]) -> dict[str, Any]:
    """Return copies of the arrays among arguments."""
    return {name: copied(arg) for name, arg in args.items()}


def judge_lines(attempt: Attempt, target: Target) -> Verdict:
    """Return the verdict on the lines of an attempt, in one call."""
    try:
        truth = Truth(target)
    except StudyError as error:  # Its forward cannot be run.
        raise AttemptError(str(error)) from None
    found = Lines(attempt, truth)
    if found.mistake is not None and found.truth.out.size == 1:
        # The factor dloss may come last. Without it, the lines before are right.
        plain = Lines(attempt, Truth(target, upstream=1.0))
        found = plain if plain.mistake is not None else found
    return Verdict(attempt.exercise, found.lines, found.mistake)


def explained(attempt: Attempt, verdict: Verdict, failure: Failure, status: LineStatus) -> Verdict:
    """Return the verdict on an attempt whose lines are right in one call, and which fails in one.

    status: of the line with the mistake.
    """
    returned, message = attempt.backward.returned, failure.message
    mistake = Mistake(JudgedLine(returned.line, returned.text, status, message=message), message)
    with contextlib.suppress(StudyError, AttemptError):
        other = judge_lines(attempt, with_functions(attempt, failure.target))
        mistake = other.mistake or mistake
    found = replace(mistake.line, status=status)
    lines = [found if line.number == found.number else line for line in verdict.lines]
    if found not in lines:
        lines.append(found)
    mistake = replace(mistake, line=found, call=failure.call)
    return replace(verdict, lines=tuple(lines), mistake=mistake)
