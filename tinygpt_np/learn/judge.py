"""Check a learner's backward: each line given right inputs, then the function as a whole.

study's proof measures what each gradient should be and runs the lines one by one. An open line is
filled and a wrong value corrected, so that one mistake makes no other line wrong. When every line
is right, the whole function is called in other ways: see whole.py. A line that was right for one
call only is right by luck.
"""

import ast
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from tinygpt_np.learn.attempt import Attempt, AttemptError, copied, described
from tinygpt_np.learn.course import Exercise
from tinygpt_np.learn.skeleton import blanks, set_by, simple_statements
from tinygpt_np.learn.sources import targets_of
from tinygpt_np.learn.whole import Failure, first_failure, gradients
from tinygpt_np.study.proof.pairing import is_array
from tinygpt_np.study.proof.prove import prove
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.proof.verdicts import BackwardLine, GradientVerdict, Proof
from tinygpt_np.study.source.parse import StudyError
from tinygpt_np.study.source.targets import Target

# luck: right for one call, and wrong for another one. unreached: an earlier line raised.
LineStatus = Literal["open", "right", "wrong", "shape", "luck", "missing", "unreached"]
# A line that is wrong only because of an earlier one is right in itself.
OF_PROOF: dict[str, LineStatus] = {
    "right": "right", "partial": "right", "warning": "right", "unmeasured": "right",
    "inherited": "right", "wrong": "wrong", "missing": "missing", "unreached": "unreached",
}  # fmt: skip
# The kinds of causes that go on with a description; others go on with the remedy.
DESCRIBED = ("a path is missing", "a condition is missing")
# What is said of the line that a learner thinks has the bug.
UNMARKED = (
    "Put the comment `# bug` at the end of the line that you think is wrong, and check again."
)
SEVERAL = "More than one line has the comment `# bug`; one line is wrong."
OTHER = "Line {} is not the wrong one."
FOUND = "Line {} is the wrong one. Repair it, keep the comment, and check again."
REPAIRED = "backward is right now. Put the comment `# bug` at the end of the line that was wrong."
MISTAKES: tuple[LineStatus, ...] = ("wrong", "shape", "missing", "luck")


@dataclass(frozen=True)
class JudgedLine:
    """A line of backward.

    reverses: the forward line that it reverses, or "". name: the gradient that it sets. blank: the
    number of the line of the exercise that it is, or -1.
    """

    number: int
    text: str
    status: LineStatus
    name: str = ""
    reverses: str = ""
    message: str = ""
    blank: int = -1


@dataclass(frozen=True)
class Mistake:
    """The first wrong line.

    found, expected: the gradient and what it should be, if both have the same shape. index: of the
    worst element. shape: the right one. call: the arguments, if the line is right for others.
    """

    line: JudgedLine
    message: str
    cause: str = ""
    found: Any = None
    expected: Any = None
    index: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    call: str = ""

    @property
    def kind(self) -> str:
        """The kind of the cause, without its remedy, such as "the sign is wrong"."""
        kind, _, _ = self.cause.partition(": ")
        return self.cause if kind in DESCRIBED else kind


@dataclass(frozen=True)
class Verdict:
    """What check says about an attempt.

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
        left = [line for line in self.lines if line.status != "right"]
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
    except StudyError:
        # These lines cannot be run one by one; the function as a whole can.
        verdict = Verdict(exercise)
        if attempt.open_lines:
            return replace(verdict, lines=tuple(open_line(attempt, n) for n in attempt.open_lines))
    if not verdict.ok:
        return verdict
    failure, calls = first_failure(attempt)
    if failure is None:
        return replace(verdict, calls=calls)
    return explained(attempt, verdict, failure, "wrong" if calls == 1 else "luck")


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
    module = {**target.module, **attempt.module}
    if not attempt.is_own_forward or target.kind == "model":
        functions = (target.functions[0], attempt.functions[1]) if target.functions else ()
        # The same lines, with the numbers that they have in the learner's file.
        return replace(target, module=module, forward=attempt.forward, functions=functions)
    line = attempt.forward.node.lineno
    changed = "forward was changed, and {}; tinygpt learn solution shows the original"
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
    truth = Truth(target)
    proof = proof_of(attempt, truth)
    if not proof.ok and truth.out.size == 1:
        # The factor dloss may come last. Without it, the lines before are right.
        plain = Truth(target, upstream=1.0)
        without = proof_of(attempt, plain)
        if not without.ok:
            truth, proof = plain, without
    lines = judged_lines(attempt, truth, proof)
    return Verdict(attempt.exercise, lines, mistake_of(lines, proof))


def proof_of(attempt: Attempt, truth: Truth) -> Proof:
    """Prove the lines of an attempt, with those of the source for open ones."""
    if attempt.open_lines:
        return prove(truth, attempt.filled())
    functions = truth.target.functions
    return prove(truth, attempt.backward, functions[1] if functions else None)


def judged_lines(attempt: Attempt, truth: Truth, proof: Proof) -> tuple[JudgedLine, ...]:
    """Return the lines of a proof that set gradients or have a mistake, in order."""
    steps = truth.trace.steps
    returned = attempt.backward.returned.line
    opened = {node.lineno: node for node in attempt.open_lines}
    found = dict[tuple[int, bool], JudgedLine]()
    for each in proof.lines:
        is_missing = each.status == "missing"
        status = OF_PROOF.get(each.status)
        if not is_missing and not each.is_return and each.line in opened:
            continue
        if status is None or (each.line == returned and status in ("right", "unreached")):
            continue
        reverses = ""
        if each.reverses is not None and each.reverses < len(steps):  # Not the return statement.
            reverses = steps[each.reverses].statement.text
        names = [g.name for g in each.gradients] or [*each.values]
        if is_missing:  # Its text is as `dx += …`.
            names = [each.text.partition(" ")[0]]
        if status == "wrong" and wrong_shape(each):
            status = "shape"
        number, text = each.line, each.text if is_missing else line_text(attempt, each)
        if is_missing and (node := without_effect(attempt, names[0], reverses)):
            number, text, status = node.lineno, attempt.backward.text(node), "wrong"
            is_missing = False
        blank = blank_number(attempt, 0 if is_missing else number, names, reverses)
        line = JudgedLine(number, text, status, ", ".join(names), reverses, each.message, blank)
        key = number, is_missing
        worse = key not in found or (status in MISTAKES and found[key].status not in MISTAKES)
        if worse:  # A line in a loop runs several times.
            found[key] = line
    for number, node in opened.items():
        found[number, False] = open_line(attempt, node)
    return tuple(sorted(found.values(), key=lambda line: line.number))


def blank_number(attempt: Attempt, number: int, names: Sequence[str], reverses: str) -> int:
    """Return the number of the line of the exercise that a line is, or -1.

    number: of the line in the file, or 0 if it is missing there.
    """
    asked, nodes = blanks(attempt.exercise), simple_statements(attempt.backward.node.body)
    for node in (node for node in nodes if node.lineno == number):
        if (blank := attempt.blank_of(node)) is not None and {*blank.names} & {*names}:
            return asked.index(blank)
    quoted = (i for i, b in enumerate(asked) if b.quote == reverses and {*b.names} & {*names})
    return next(quoted, -1)


def without_effect(attempt: Attempt, name: str, quote: str) -> ast.stmt | None:
    """Return the line that should add a missing term: it sets the name under the quoted line."""
    for node in simple_statements(attempt.backward.node.body):
        above = attempt.backward.comments_above(node.lineno)[:1]
        if quote and name in set_by(node) and above == [quote]:
            return node
    return None


def open_line(attempt: Attempt, node: ast.stmt) -> JudgedLine:
    """Return a line that is open."""
    blank = attempt.blank_of(node)
    text = attempt.backward.lines[node.lineno - 1].strip()
    quote = blank.quote if blank else ""
    names = blank.names if blank else ()
    number = blanks(attempt.exercise).index(blank) if blank else -1
    return JudgedLine(node.lineno, text, "open", ", ".join(names), quote, blank=number)


def line_text(attempt: Attempt, line: BackwardLine) -> str:
    """Return the text of a line in the file, without its comment."""
    text = attempt.backward.lines[line.line - 1]
    return text.partition("  #")[0].strip()


def wrong_gradient(line: BackwardLine) -> GradientVerdict | None:
    """Return the first wrong gradient of a line."""
    return next((each for each in line.gradients if each.status == "wrong"), None)


def wrong_shape(line: BackwardLine) -> bool:
    """Return whether a line is wrong because its gradient has another shape."""
    wrong = wrong_gradient(line)
    if wrong is None or not is_array(wrong.found):
        return False
    return np.shape(wrong.found) != np.shape(wrong.expected.value)


def mistake_of(lines: tuple[JudgedLine, ...], proof: Proof, call: str = "") -> Mistake | None:
    """Return the first mistake of a proof, or None."""
    first = proof.first_wrong
    if first is None:
        return None
    named = (each for each in lines if each.message == first.message and each.status in MISTAKES)
    line = next(named, None)
    if line is None:  # An open line, which the source cannot fill in a closed form.
        return None
    wrong = wrong_gradient(first)
    mistake = Mistake(line, first.message, first.cause, call=call)
    if wrong is None:
        return mistake
    row, shape = wrong.row, np.shape(wrong.expected.value)
    return replace(
        mistake, found=row.found, expected=row.expected, index=row.index, shape=shape,
        cause=first.cause or row.cause,
    )  # fmt: skip


def explained(attempt: Attempt, verdict: Verdict, failure: Failure, status: LineStatus) -> Verdict:
    """Return the verdict on an attempt whose lines are right in one call, and which fails in one.

    status: of the line with the mistake.
    """
    returned = attempt.backward.returned
    message = failure.message
    line = JudgedLine(returned.line, returned.text, status, message=message)
    mistake = Mistake(line, message, call=failure.call)
    try:
        target = with_functions(attempt, failure.target)
        truth = Truth(target)
        proof = proof_of(attempt, truth)
        lines = judged_lines(attempt, truth, proof)
        mistake = mistake_of(lines, proof, failure.call) or mistake
    except (StudyError, AttemptError):
        pass
    found = replace(mistake.line, status=status)
    lines = [found if line.number == found.number else line for line in verdict.lines]
    if found not in lines:
        lines.append(found)
    return replace(verdict, lines=tuple(lines), mistake=replace(mistake, line=found))
