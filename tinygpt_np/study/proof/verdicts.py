"""The verdicts on the lines of a backward and on each gradient that they set."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np

from tinygpt_np.gradcheck.report import Row
from tinygpt_np.study.proof.backward_trace import BackwardTrace
from tinygpt_np.study.proof.pairing import Pair
from tinygpt_np.study.proof.truth import Expected
from tinygpt_np.study.source.parse import Function
from tinygpt_np.study.source.trace import Step

# right: the gradient. wrong: not the gradient, and this line has the mistake. missing: not a line
# of the backward, but the place where one should add a part of a gradient. inherited: not the
# gradient, because the gradients that it reads are wrong. partial: a later line completes it.
# warning: the comment states another shape, but nothing is wrong.
# unmeasured: neither right nor wrong, because the gradient could not be measured. unreached: an
# earlier line raised. "": the line sets no gradient.
Status = Literal[
    "right", "wrong", "missing", "inherited", "partial", "warning", "unmeasured", "unreached", ""
]
# The statuses of the lines that a reader should look at first.
MISTAKES: tuple[Status, ...] = ("wrong", "missing")
TOLERANCE = 1e-12


@dataclass(frozen=True)
class GradientVerdict:
    """The verdict on one gradient that a line sets.

    name: the name that is set, or that of a parameter. row: the figures of the comparison. found,
    expected: the array and what it should be: the gradient, or a term added to it (is_term).
    """

    name: str
    pair: Pair | None
    status: Status
    row: Row
    found: Any
    expected: Expected
    is_term: bool = False

    @property
    def digits(self) -> int:
        """The number of correct decimal digits; 16 if all bits are."""
        if not self.row.ok or math.isnan(self.row.relative):
            return 16 if self.row.ok else 0
        return min(16, int(-math.log10(max(self.row.relative, 1e-17))))

    @property
    def problem(self) -> str:
        """The name and the first problem."""
        return f"{self.name}: {self.row.messages[0]}"


@dataclass(frozen=True)
class BackwardLine:
    """A step of a backward, its return statement, or the place of a missing line.

    step: None for the return and for a missing line. line: of a missing line, the number of the
    line above it. text: of a missing line, what it should add to, such as "dh += …". reverses: the
    forward step that it reverses, or should. values: of the names it sets. message, cause: what is
    wrong, and why. fused: names without a verdict of their own, checked together with this line.
    """

    step: Step | None
    line: int
    text: str
    shape: str = ""
    reverses: int | None = None
    gradients: tuple[GradientVerdict, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    status: Status = ""
    message: str = ""
    cause: str = ""
    fused: tuple[str, ...] = ()

    @property
    def stated_cause(self) -> str:
        """The cause; a missing line is one itself."""
        is_missing = self.status == "missing" and not self.cause
        return f"a path is missing: {self.message}" if is_missing else self.cause

    @property
    def is_return(self) -> bool:
        """Whether it is the return statement."""
        return self.step is None and self.status != "missing"


@dataclass(frozen=True)
class Proof:
    """The verdicts on a backward; its lines in the order in which they run, the return last.

    A missing line has the status "missing" and is listed where it should run.
    """

    function: Function
    lines: tuple[BackwardLine, ...]
    trace: BackwardTrace

    @property
    def ok(self) -> bool:
        """Whether no line is wrong or missing, and what is returned could be measured."""
        returned = (g for line in self.lines if line.is_return for g in line.gradients)
        return self.first_wrong is None and all(g.status != "unmeasured" for g in returned)

    @property
    def first_wrong(self) -> BackwardLine | None:
        """The first line that is wrong or missing, or None."""
        return next((line for line in self.lines if line.status in MISTAKES), None)

    def reported(self, line: BackwardLine) -> list[GradientVerdict]:
        """Return the verdicts to report on a line; the return repeats none of earlier lines."""
        if line.step is not None:
            return [*line.gradients]
        before = {g.name for other in self.lines if other.step is not None for g in other.gradients}
        return [g for g in line.gradients if g.name not in before or g.status == "wrong"]

    @property
    def verdicts(self) -> list[GradientVerdict]:
        """All verdicts that are reported, without partial sums."""
        reported = [gradient for line in self.lines for gradient in self.reported(line)]
        return [gradient for gradient in reported if gradient.status != "partial"]

    @property
    def worst(self) -> float:
        """The largest relative error of a gradient."""
        rows = [gradient.row for gradient in self.verdicts if not gradient.row.is_zero]
        return max((row.relative for row in rows), default=0.0)


def compare(
    name: str, pair: Pair | None, found: Any, expected: Expected, *, is_added: bool = False
) -> GradientVerdict:
    """Compare a gradient with the expected one; a term that is added to one may broadcast."""
    shape = np.shape(expected.value)
    if isinstance(found, float | int):
        found = np.asarray(found, np.result_type(expected.value))
    row = expected.compare(found)
    array = cast(Any, found if isinstance(found, np.ndarray | np.generic) else expected.value)
    if array.shape != shape and broadcasts_to(array.shape, shape):
        broadcast = expected.compare(np.broadcast_to(array, shape))
        # A returned gradient must have the shape itself, see Judged.result.
        row = broadcast if is_added or not broadcast.problems else row
    return GradientVerdict(name, pair, status_of(row), row, found, expected)


def status_of(row: Row) -> Status:
    """Return the status of a gradient from its comparison."""
    if row.problems:
        return "wrong"
    return "unmeasured" if row.unmeasured else "right"


def combined_status(gradients: Sequence[GradientVerdict]) -> Status:
    """Return the status of a line none of whose gradients is wrong."""
    statuses = {gradient.status for gradient in gradients}
    order: tuple[Status, ...] = ("unmeasured", "right", "partial", "")
    return next(status for status in order if status in statuses or not status)


def broadcasts_to(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Return whether a shape broadcasts to another one."""
    try:
        return np.broadcast_shapes(shape, wanted) == wanted
    except ValueError:
        return False


def nearly_equal(here: Any, there: Any) -> bool:
    """Return whether two values are equal up to rounding."""
    if isinstance(here, tuple) and isinstance(there, tuple):
        first, second = cast(tuple[Any, ...], here), cast(tuple[Any, ...], there)
        return len(first) == len(second) and all(map(nearly_equal, first, second))
    numbers = np.ndarray | np.generic | int | float
    if not isinstance(here, numbers) or not isinstance(there, numbers):
        return type(cast(Any, here)) is type(there)
    a, b = np.asarray(here, complex), np.asarray(there, complex)
    tolerance = TOLERANCE * float(np.linalg.norm(b))
    return a.shape == b.shape and float(np.linalg.norm(a - b)) <= tolerance
