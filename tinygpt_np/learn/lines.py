"""Check the lines of a learner's backward in one call, each given right inputs.

study's proof measures what each gradient should be and runs the lines one by one. Lines of the
source run in the place of open ones. When a line is found wrong, that of the source takes its
place too, and the others are proven again; so one mistake makes no other line wrong.
"""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from tinygpt_np.learn.attempt import Attempt
from tinygpt_np.learn.skeleton import Blank, blanks, returned, set_by, simple_statements
from tinygpt_np.learn.sources import source_of
from tinygpt_np.study.proof.prove import prove
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.proof.verdicts import BackwardLine, GradientVerdict, Proof

# luck: right for one call, and wrong for another one. untested: it depends on an earlier line with
# a mistake that could not be corrected, or that raised.
LineStatus = Literal["open", "right", "wrong", "shape", "luck", "missing", "untested"]
OF_PROOF: dict[str, LineStatus] = {
    "right": "right", "partial": "right", "warning": "right", "unmeasured": "right",
    "inherited": "untested", "unreached": "untested", "wrong": "wrong", "missing": "missing",
}  # fmt: skip
MISTAKES: tuple[LineStatus, ...] = ("wrong", "shape", "missing", "luck")
# The kinds of causes that go on with a description; others go on with the remedy.
DESCRIBED = ("a path is missing", "a condition is missing", "it is None")
# Kinds that say no more than that a line is wrong.
EMPTY = ("the wrong value", "the wrong number")
CHANGES = "changes an input of backward in place: the upstream gradient, or what was saved"
IN_PLACE = "it is None: functions that work in place, such as np.add.at, return None"


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
        return self.cause if kind in DESCRIBED else kind * (kind not in EMPTY)


class Lines:
    """The verdicts on the lines of an attempt in one call.

    found: the lines. mistakes: the first one and those that are found when it is corrected, by the
    number of the line.
    """

    def __init__(self, attempt: Attempt, truth: Truth) -> None:
        self.attempt, self.truth = attempt, truth
        self.mistakes = dict[int, Mistake]()
        self.nodes = simple_statements(attempt.backward.node.body)
        self.filled, self.added = attempt.open_blanks, dict[int, Blank]()
        self.found = {node.lineno: open_line(attempt, node) for node in attempt.open_lines}
        proof = self.proof()
        while (mistake := self.first_mistake(proof)) and self.is_new(mistake):
            self.mistakes[mistake.line.number] = mistake
            if not self.correct(mistake.line):
                break
            proof = self.proof()
        self.found |= {n: each.line for n, each in self.mistakes.items()}
        for line in map(self.line, proof.lines):
            if line is not None:
                self.found.setdefault(line.number, line)

    @property
    def lines(self) -> tuple[JudgedLine, ...]:
        """The lines in the order of the file."""
        return tuple(self.found[number] for number in sorted(self.found))

    @property
    def mistake(self) -> Mistake | None:
        """The first mistake in the file."""
        return self.mistakes[min(self.mistakes)] if self.mistakes else None

    def proof(self) -> Proof:
        """Prove the lines, with those of the source for the ones that are open or wrong."""
        attempt, functions = self.attempt, self.truth.target.functions
        if self.filled or self.added:
            return prove(self.truth, attempt.with_source(self.filled, self.added))
        own = functions[1] if functions and not attempt.open_lines else None
        return prove(self.truth, attempt.backward, own)

    def is_new(self, mistake: "Mistake") -> bool:
        """Return whether a mistake is in a line of the learner's that is not corrected yet."""
        return mistake.line.number not in (*self.mistakes, *self.found, *self.added)

    def correct(self, line: JudgedLine) -> bool:
        """Let the line of the source take the place of a wrong one; return whether there is one."""
        if self.attempt.exercise.kind == "closed" or line.blank < 0:
            return False
        blank = blanks(self.attempt.exercise)[line.blank]
        if line.status == "missing":
            self.added[self.last_before(line.number)] = blank
        elif self.set_at(line.number):
            self.filled[line.number] = blank
        else:
            return False
        return True

    def last_before(self, number: int) -> int:
        """Return the line of the last statement at or before a line, or of the first one."""
        before = [node.lineno for node in self.nodes if node.lineno <= number]
        return max(before, default=self.nodes[0].lineno)

    def first_mistake(self, proof: Proof) -> "Mistake | None":
        """Return the first mistake of a proof."""
        first = proof.first_wrong
        line = self.line(first) if first is not None else None
        if first is None or line is None:
            return None
        # Later lines may be wrong only because an input has changed.
        steps = (each.step.statement for each in proof.trace.executed if each.overwrites_input)
        changing = next((each.line for each in steps if each.line <= line.number), None)
        if changing is not None and changing not in self.filled:
            names = self.set_at(changing)
            blank = self.blank_number(changing, names, "", "wrong")
            own = JudgedLine(changing, self.text_at(changing), "wrong", blank=blank)
            return Mistake(replace(own, message=CHANGES, name=", ".join(names)), CHANGES)
        mistake = Mistake(line, self.in_words(first.message), first.cause)
        if self.is_none(proof, line):
            mistake = replace(mistake, cause=IN_PLACE)
        wrong = wrong_gradient(first)
        if wrong is None:
            return mistake
        row, shape = wrong.row, np.shape(wrong.expected.value)
        return replace(
            mistake, found=row.found, expected=row.expected, index=row.index, shape=shape,
            cause=mistake.cause or row.cause,
        )  # fmt: skip

    def is_none(self, proof: Proof, line: JudgedLine) -> bool:
        """Return whether a line sets a name to the None that np.add.at returns."""
        runs = (each for each in proof.trace.executed if each.step.statement.line == line.number)
        values = (each.values.get(line.name, 0) for each in runs if not each.error)
        return ".at(" in line.text and any(value is None for value in values)

    def line(self, proven: BackwardLine) -> JudgedLine | None:
        """Return a line of a proof, or None if it sets no gradient and has no mistake."""
        status, number = OF_PROOF.get(proven.status), proven.line
        is_return = number == self.attempt.backward.returned.line
        if status is None or (is_return and status in ("right", "untested")):
            return None
        steps, reverses = self.truth.trace.steps, ""
        if proven.reverses is not None and proven.reverses < len(steps):  # Not the return.
            reverses = steps[proven.reverses].statement.text
        names = [g.name for g in proven.gradients] or [*proven.values] or self.set_at(number)
        message, text = self.in_words(proven.message), ""
        if status == "missing":
            names = [proven.text.partition(" ")[0]]  # Its text is as `dx += …`.
            if node := self.without_effect(names[0], reverses):
                number, status = node.lineno, "wrong"
            else:
                number, text = self.place_of(reverses, number), proven.text
        elif status == "wrong" and re.search(r"^(?!raises).*\bshape\b", message):
            status = "shape"
        text = text or self.text_at(number)
        blank = self.blank_number(number, names, reverses, status)
        return JudgedLine(number, text, status, ", ".join(names), reverses, message, blank)

    def in_words(self, message: str) -> str:
        """Return a message of a proof with the names of the exercise, and errors in percent."""
        source = source_of(self.attempt.exercise).backward
        if "wrt says" in message and returned(source):
            return f"backward must return {', '.join(returned(source))}"
        message = re.sub(r"\bdout\b", source.upstream, message)
        size = re.compile(r"off by ([\d.e+-]+) of its norm")
        return size.sub(lambda found: f"off by {100 * float(found.group(1)):.3g} %", message)

    def set_at(self, number: int) -> list[str]:
        """Return the names that the statement at a line of the file sets."""
        return [name for n in self.nodes if n.lineno == number for name in set_by(n)]

    def text_at(self, number: int) -> str:
        """Return the text of the statement at a line of the file, without its comment."""
        node = next((node for node in self.nodes if node.lineno == number), None)
        return self.attempt.backward.text(node) if node is not None else ""

    def blank_number(
        self, number: int, names: Sequence[str], reverses: str, status: LineStatus
    ) -> int:
        """Return the number of the line of the exercise that a line is, or -1."""
        asked = blanks(self.attempt.exercise)
        for node in (node for node in self.nodes if node.lineno == number and status != "missing"):
            if (blank := self.attempt.blank_of(node)) is not None and {*blank.names} & {*names}:
                return asked.index(blank)
        same = [i for i, blank in enumerate(asked) if {*blank.names} & {*names}]
        quoted = [i for i in same if asked[i].quote == reverses]
        # The last line that sets a name sets what is returned.
        return next(iter(quoted), same[-1] if same else -1)

    def without_effect(self, name: str, quote: str) -> ast.stmt | None:
        """Return the line that should add a missing term: it sets the name under the quoted one."""
        for node in self.nodes:
            above = self.attempt.backward.comments_above(node.lineno)[:1]
            if quote and name in set_by(node) and above == [quote]:
                return node
        return None

    def place_of(self, quote: str, number: int) -> int:
        """Return the line of the comment that quotes a forward line, or else another number."""
        function = self.attempt.backward
        body = range(function.node.lineno, (function.node.end_lineno or 0) + 1)
        lines = (n for n in body if function.lines[n - 1].strip() == f"# {quote}")
        return next(lines, number)


def open_line(attempt: Attempt, node: ast.stmt) -> JudgedLine:
    """Return a line that is open."""
    blank = attempt.blank_of(node)
    text = attempt.backward.lines[node.lineno - 1].strip()
    number = blanks(attempt.exercise).index(blank) if blank else -1
    names, quote = (", ".join(blank.names), blank.quote) if blank else ("", "")
    return JudgedLine(node.lineno, text, "open", names, quote, blank=number)


def wrong_gradient(line: BackwardLine) -> GradientVerdict | None:
    """Return the first wrong gradient of a line."""
    return next((each for each in line.gradients if each.status == "wrong"), None)
