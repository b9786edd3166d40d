"""A backward with a verdict on each gradient that it sets, line by line."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from tinygpt_np.gradcheck.report import Row
from tinygpt_np.study.pairing import Pair
from tinygpt_np.study.source import Function
from tinygpt_np.study.trace import Step
from tinygpt_np.study.truth import Expected
from tinygpt_np.study.undo import Undone

# right: a gradient, proven. wrong: not the gradient, and this line is to blame. inherited: not the
# gradient, since what came in is none. begun: completed by a later line. odd: not what forward or
# the comment says, but no gradient suffers. unreached: an earlier line raised. "": nothing to prove
# on this line.
Status = Literal["right", "wrong", "inherited", "begun", "odd", "unreached", ""]
SAME = 1e-12


@dataclass(frozen=True)
class Gradient:
    """The verdict on one gradient. name: as it is set, or of a parameter. row: the figures.

    found, expected: the array, and what it should be; of a part of several (is_part) that is added,
    the part. whole: what the name should hold after the line.
    """

    name: str
    pair: Pair | None
    status: Status
    row: Row
    found: Any
    expected: Expected
    whole: Expected
    is_part: bool = False

    @property
    def digits(self) -> int:
        return digits(self.row)


@dataclass(frozen=True)
class Line:
    """A step of a backward, or its return (step None).

    undoes: the forward step. values: what the names it sets hold then. says, cause: what is wrong,
    and what it looks like. fused: names without a verdict of their own, verified together with it.
    """

    step: Step | None
    line: int
    text: str
    shape: str
    undoes: int | None
    gradients: tuple[Gradient, ...]
    values: Mapping[str, Any]
    status: Status
    says: str = ""
    cause: str = ""
    fused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Proof:
    """lines: in the order in which they run, the return last."""

    function: Function
    lines: tuple[Line, ...]
    undone: Undone

    @property
    def ok(self) -> bool:
        return self.first_wrong is None

    @property
    def first_wrong(self) -> Line | None:
        return next((line for line in self.lines if line.status == "wrong"), None)

    @property
    def gradients(self) -> list[Gradient]:
        return [gradient for line in self.lines for gradient in line.gradients]

    def told(self, line: Line) -> list[Gradient]:
        """The verdicts that a line has to tell: a return those that no line before it told."""
        if line.step is not None:
            return [*line.gradients]
        before = {g.name for other in self.lines if other.step is not None for g in other.gradients}
        return [g for g in line.gradients if g.name not in before or g.status == "wrong"]

    @property
    def judged(self) -> list[Gradient]:
        """Every verdict that is told."""
        told = [gradient for line in self.lines for gradient in self.told(line)]
        return [gradient for gradient in told if gradient.status != "begun"]

    @property
    def worst(self) -> float:
        """The largest relative error of a gradient."""
        rows = [g.row for g in self.judged if g.status != "odd" and not g.row.is_zero]
        return max((row.relative for row in rows), default=0.0)


def digits(row: Row) -> int:
    """How many decimal digits are right: 16 where no bit is off."""
    if not row.ok or math.isnan(row.relative):
        return 0 if not row.ok else 16
    return min(16, int(-math.log10(max(row.relative, 1e-17))))


def judged(
    name: str, pair: Pair | None, found: Any, expected: Expected, *, is_added: bool = False
) -> Gradient:
    """The verdict on what was found for a gradient; what is added to one may broadcast."""
    shape = np.shape(expected.value)
    if isinstance(found, float | int):
        found = np.asarray(found, np.result_type(expected.value))
    row = expected.judge(found)
    if np.shape(found) != shape and fits(np.shape(found), shape):
        broadcast = expected.judge(np.broadcast_to(found, shape))
        # Where it is right once it broadcasts, its own shape is an oddity, which prover.py names.
        row = broadcast if broadcast.ok or is_added else row
    return Gradient(name, pair, "right" if row.ok else "wrong", row, found, expected, expected)


def problem(gradient: Gradient) -> tuple[str, str]:
    """What is wrong with a gradient, and what it looks like."""
    row = gradient.row
    return f"{gradient.name}: {row.problems[0]}", row.cause


def best(gradients: Sequence[Gradient]) -> Status:
    statuses = [gradient.status for gradient in gradients]
    return "right" if "right" in statuses else "begun" if statuses else ""


def fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a shape broadcasts to another one."""
    try:
        return np.broadcast_shapes(shape, wanted) == wanted
    except ValueError:
        return False


def alike(here: Any, there: Any) -> bool:
    """Whether a name holds what it held in forward, to rounding."""
    if isinstance(here, tuple) and isinstance(there, tuple):
        ours, theirs = cast(tuple[Any, ...], here), cast(tuple[Any, ...], there)
        pairs = zip(ours, theirs, strict=False)
        return len(ours) == len(theirs) and all(alike(a, b) for a, b in pairs)
    if not is_number(here) or not is_number(there):
        return type(cast(Any, here)) is type(there)
    a, b = np.asarray(here, complex), np.asarray(there, complex)
    near = SAME * float(np.linalg.norm(b))
    return a.shape == b.shape and float(np.linalg.norm(a - b)) <= near


def is_number(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic | int | float)
