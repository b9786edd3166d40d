"""What is shown of a target: each forward line beside the backward lines that undo it.

Read downwards, the left side is the forward; read upwards, the right side is the backward, which
begins beside the forward's return, and returns beside the forward's first line.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tinygpt_np.study.proof import Gradient, Line, Proof
from tinygpt_np.study.prover import prove
from tinygpt_np.study.source import Function
from tinygpt_np.study.target import Target
from tinygpt_np.study.trace import Step, Value
from tinygpt_np.study.truth import Truth


@dataclass(frozen=True)
class Row:
    """A forward line and what undoes it. step: None on the first and the last row.

    backward: in the order in which it is read upwards, so the line that runs last comes first.
    """

    line: int
    text: str
    shape: str
    step: Step | None
    backward: tuple[Line, ...]


@dataclass(frozen=True)
class Sheet:
    """A target with the proof of each of its backwards. others: the sheets of its other calls."""

    truth: Truth
    proofs: tuple[Proof, ...]
    others: tuple["Sheet", ...] = ()

    @property
    def target(self) -> Target:
        return self.truth.target

    @property
    def ok(self) -> bool:
        return all(proof.ok for proof in self.proofs) and all(other.ok for other in self.others)

    @property
    def judged(self) -> list[Gradient]:
        return [gradient for proof in self.proofs for gradient in proof.judged]

    @property
    def worst(self) -> float:
        """The largest relative error of a gradient."""
        return max(proof.worst for proof in self.proofs)

    @cached_property
    def rows(self) -> list[Row]:
        return rows(self.target.forward, self.truth.trace.steps, self.proofs[0])

    @cached_property
    def values(self) -> list[Value]:
        """The values through which a gradient flows, in the order of the forward."""
        return [value for value in self.truth.trace.values() if value in self.truth.flowing]

    def is_constant(self, row: Row) -> bool:
        """Whether no gradient flows through a line."""
        return row.step is not None and all(v.step != row.step.index for v in self.values)

    def gradients(self, value: Value) -> list[tuple[Proof, Line, Gradient]]:
        """The verdicts on the gradient of a value, whole or in parts, wherever they stand."""
        return [
            (proof, line, gradient)
            for proof in self.proofs
            for line in proof.lines
            for gradient in line.gradients
            if gradient.pair is not None and gradient.pair.value == value
        ]

    def found(self, value: Value) -> Any:
        """The whole gradient of a value, as the backward has it at last, or None."""
        name = f"d{value.name}"
        upstream = self.proofs[0].function.arguments
        if name in upstream and value.step >= 0:
            return self.truth.doutput
        found = [
            line.values[name]
            for line in self.proofs[0].lines
            for gradient in line.gradients
            if line.step is not None and gradient.name == name
            if gradient.pair is not None and gradient.pair.value == value
        ]
        return found[-1] if found else None

    def fused(self, value: Value) -> tuple[str, ...]:
        """For a value without a gradient of its own in any backward: with what it is verified."""
        if self.gradients(value) or self.found(value) is not None:
            return ()
        reached = {value}
        for step in self.truth.trace.steps[: value.step + 1][::-1]:
            if any(each.step == step.index for each in reached):
                reached |= {self.truth.trace.reaching(n, step.index) for n in step.statement.reads}
        names = [f"d{v.name}" for v in self.values if v in reached and self.gradients(v)]
        return tuple(dict.fromkeys(names))

    @cached_property
    def agreement(self) -> float | None:
        """How far backward_steps and backward lie apart, as a share of the gradient; None where
        there are no two, or no two gradients of one shape.
        """
        if len(self.proofs) < 2:
            return None
        shares = [0.0]
        for name in self.target.wrt:
            steps, closed = (returned(proof, name) for proof in self.proofs)
            if steps is None or closed is None or np.shape(steps) != np.shape(closed):
                return None
            size = float(np.linalg.norm(steps))
            shares.append(float(np.linalg.norm(steps - closed)) / (size or 1.0))
        return max(shares)


def returned(proof: Proof, argument: str) -> Any:
    """What a backward returned for an argument."""
    gradients = proof.lines[-1].gradients
    return next((g.found for g in gradients if g.name == f"d{argument}"), None)


def study(target: Target) -> Sheet:
    """Runs a target and proves its backwards, line by line."""
    truth = Truth(target)
    functions: tuple[Callable[..., Any] | None, ...] = target.functions[1:]
    functions = functions or (None,) * len(target.backwards)
    pairs = zip(target.backwards, functions, strict=True)
    proofs = tuple(prove(truth, function, callable_) for function, callable_ in pairs)
    return Sheet(truth, proofs, tuple(study(other) for other in target.others))


def rows(forward: Function, steps: list[Step], proof: Proof) -> list[Row]:
    """The lines of a forward with those of its backward, from the top to the bottom."""
    beside: dict[int, list[Line]] = {}
    waiting, current = list[Line](), len(steps)
    for line in proof.lines:
        if line.step is None:
            current = -1
        elif line.undoes is not None:
            current = line.undoes
        elif current < len(steps):
            # What comes before the next line that undoes something is there for its sake.
            waiting.append(line)
            continue
        beside.setdefault(current, []).extend([*waiting, line])
        waiting = []
    beside.setdefault(current, []).extend(waiting)

    def row(index: int, line: int, text: str, shape: str, step: Step | None) -> Row:
        return Row(line, text, shape, step, tuple(reversed(beside.get(index, []))))

    head = f"def {forward.name}({', '.join(forward.arguments)})"
    last = forward.returned
    return [
        row(-1, forward.node.lineno, head, "", None),
        *(row(s.index, s.statement.line, s.statement.text, s.statement.shape, s) for s in steps),
        row(len(steps), last.lineno, forward.statement(last).text, "", None),
    ]
