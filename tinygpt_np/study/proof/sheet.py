"""Study a target: each forward line next to the backward lines that reverse it.

The forward is read from top to bottom. The backward is read from bottom to top: it starts next to
the return statement of the forward and returns next to the forward's first line.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tinygpt_np.study.proof.prove import prove
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.proof.verdicts import BackwardLine, GradientVerdict, Proof
from tinygpt_np.study.source.parse import Function
from tinygpt_np.study.source.targets import Target
from tinygpt_np.study.source.trace import Step, Value


@dataclass(frozen=True)
class SheetRow:
    """A forward line and the backward lines that reverse it, the one that runs last first.

    The first row (the signature) and the last row (the return) have no step.
    """

    line: int
    text: str
    shape: str
    step: Step | None
    backward: tuple[BackwardLine, ...]


@dataclass(frozen=True)
class Sheet:
    """A target with the proofs of its backwards, and the sheets of its variants."""

    truth: Truth
    proofs: tuple[Proof, ...]
    variants: tuple["Sheet", ...] = ()

    @property
    def target(self) -> Target:
        """The target."""
        return self.truth.target

    @property
    def ok(self) -> bool:
        """Whether no line is wrong, in any backward or variant."""
        return all(proof.ok for proof in self.proofs) and all(each.ok for each in self.variants)

    @property
    def all_verdicts(self) -> list[GradientVerdict]:
        """All verdicts on the backwards of this call."""
        return [gradient for proof in self.proofs for gradient in proof.verdicts]

    @property
    def worst(self) -> float:
        """The largest relative error of a gradient."""
        return max(proof.worst for proof in self.proofs)

    @cached_property
    def rows(self) -> list[SheetRow]:
        """The forward lines with the lines of the first backward."""
        return align(self.target.forward, self.truth.trace.steps, self.proofs[0])

    @cached_property
    def values(self) -> list[Value]:
        """The values through which a gradient flows, in the order of the forward."""
        return [value for value in self.truth.trace.values() if value in self.truth.differentiable]

    def is_constant(self, row: SheetRow) -> bool:
        """Return whether no gradient flows through a line."""
        return row.step is not None and all(v.step != row.step.index for v in self.values)

    def verdicts(self, value: Value) -> list[tuple[Proof, BackwardLine, GradientVerdict]]:
        """Return the verdicts on the gradient of a value and on its terms, in all backwards."""
        return [
            (proof, line, gradient)
            for proof in self.proofs
            for line in proof.lines
            for gradient in line.gradients
            if gradient.pair is not None and gradient.pair.value == value
        ]

    def gradient(self, value: Value) -> Any:
        """Return the complete gradient of a value as computed by the first backward, or None."""
        name = f"d{value.name}"
        if name in self.proofs[0].function.arguments and value.step >= 0:
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
        """Return the gradients with which a value is checked, if no backward has its gradient."""
        if self.verdicts(value) or self.gradient(value) is not None:
            return ()
        reached = {value}
        for step in self.truth.trace.steps[: value.step + 1][::-1]:
            if any(each.step == step.index for each in reached):
                names = step.statement.reads
                reached |= {self.truth.trace.definition(name, step.index) for name in names}
        names = [f"d{v.name}" for v in self.values if v in reached and self.verdicts(v)]
        return tuple(dict.fromkeys(names))

    @cached_property
    def agreement(self) -> float | None:
        """The largest relative difference between the gradients of backward_steps and backward.

        None if there is one backward only, or if the gradients cannot be compared.
        """
        if len(self.proofs) < 2:
            return None
        differences = [0.0]
        for name in self.target.wrt:
            steps, closed = (returned(proof, name) for proof in self.proofs)
            if steps is None or closed is None or np.shape(steps) != np.shape(closed):
                return None
            size = float(np.linalg.norm(steps))
            differences.append(float(np.linalg.norm(steps - closed)) / (size or 1.0))
        return max(differences)


def returned(proof: Proof, argument: str) -> Any:
    """Return the gradient that a backward returned for an argument."""
    gradients = proof.lines[-1].gradients
    return next((g.found for g in gradients if g.name == f"d{argument}"), None)


def study(target: Target) -> Sheet:
    """Run a target and prove its backwards line by line."""
    truth = Truth(target)
    functions: tuple[Callable[..., Any] | None, ...] = target.functions[1:]
    functions = functions or (None,) * len(target.backwards)
    pairs = zip(target.backwards, functions, strict=True)
    proofs = tuple(prove(truth, function, callable_) for function, callable_ in pairs)
    return Sheet(truth, proofs, tuple(study(variant) for variant in target.variants))


def align(forward: Function, steps: list[Step], proof: Proof) -> list[SheetRow]:
    """Return the lines of a forward with the lines of a backward, from top to bottom."""
    backward: dict[int, list[BackwardLine]] = {}
    preparing, current = list[BackwardLine](), len(steps)
    for line in proof.lines:
        if line.step is None:
            current = -1
        elif line.reverses is not None:
            current = line.reverses
        elif current < len(steps):
            # A line that reverses nothing prepares the next line that does.
            preparing.append(line)
            continue
        backward.setdefault(current, []).extend([*preparing, line])
        preparing = []
    backward.setdefault(current, []).extend(preparing)

    def row(index: int, line: int, text: str, shape: str, step: Step | None) -> SheetRow:
        return SheetRow(line, text, shape, step, tuple(reversed(backward.get(index, []))))

    head = f"def {forward.name}({', '.join(forward.arguments)})"
    last = forward.returned
    return [
        row(-1, forward.node.lineno, head, "", None),
        *(row(s.index, s.statement.line, s.statement.text, s.statement.shape, s) for s in steps),
        row(len(steps), last.lineno, forward.statement(last).text, "", None),
    ]
