"""Study a target: each forward line next to the backward lines that reverse it.

The forward is read from top to bottom. The backward is read from bottom to top: it starts next to
the return statement of the forward and returns next to the forward's first line.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any

import numpy as np

from tinygpt_np.gradcheck.progress import Announce, quiet
from tinygpt_np.study.proof.prove import prove
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.proof.verdicts import BackwardLine, GradientVerdict, Proof
from tinygpt_np.study.source.parse import Function
from tinygpt_np.study.source.targets import Target
from tinygpt_np.study.source.trace import Step, Value


@dataclass(frozen=True)
class SheetRow:
    """A forward line and the backward lines that reverse it, the one that runs last first.

    The first row (the signature, with index -1) and the last row (the return) have no step.
    """

    index: int
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
        """Whether every backward is right, in all variants."""
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

    def set_by(self, row: SheetRow) -> list[Value]:
        """Return the values that a line sets and through which a gradient flows."""
        return [value for value in self.values if value.step == row.index]

    def is_constant(self, row: SheetRow) -> bool:
        """Return whether no gradient flows through a line."""
        return row.step is not None and not self.set_by(row)

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
        name, first = f"d{value.name}", self.proofs[0]
        if name in first.function.arguments and value.step >= 0:
            return self.truth.doutput
        found = [
            line.values[name]
            for proof, line, gradient in self.verdicts(value)
            if proof is first and line.step is not None and gradient.name == name
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

    def fused_with(self, row: SheetRow) -> list[str]:
        """Return the gradients with which the values of a line are checked."""
        return [*dict.fromkeys(name for value in self.set_by(row) for name in self.fused(value))]

    def followed(self, proof: Proof, line: BackwardLine, gradient: GradientVerdict) -> Step | None:
        """Return the forward step whose rule gives a gradient, or None if a line reverses several.

        A line that follows a rule reads the gradient of what the forward line sets, itself or
        through names that have no verdict of their own.
        """
        pair, trace = gradient.pair, self.truth.trace
        uses = [line.reverses if pair is None else pair.use]
        if pair is not None and pair.use is None:
            uses = [*trace.uses(pair.value)]
        statement = line.step.statement if line.step else proof.function.returned
        reads, found = {*statement.mentions}, list[Step]()
        for other in (other.step.statement for other in proof.lines if other.step):
            reads |= other.mentions if {*other.sets} & {*line.fused} else set[str]()
        # The return statement uses values too, and is no step.
        steps = [trace.steps[use] for use in uses if use is not None and use < len(trace.steps)]
        for step in steps:
            sets = {*step.statement.sets}
            given = {f"d{name}" for name in sets}
            if trace.output_names & sets:
                given.add(proof.function.upstream)
            found += [step] if given & reads else []
        return found[0] if len(found) == 1 else None

    @cached_property
    def agreement(self) -> float | None:
        """The largest relative difference between the gradients of two backwards, if any."""
        if len(self.proofs) < 2:
            return None
        returned = [{g.name: g.found for g in proof.lines[-1].gradients} for proof in self.proofs]
        differences = [0.0]
        for name in self.target.wrt:
            steps, closed = (found.get(f"d{name}") for found in returned)
            if steps is None or closed is None or np.shape(steps) != np.shape(closed):
                return None
            size = float(np.linalg.norm(steps))
            differences.append(float(np.linalg.norm(steps - closed)) / (size or 1.0))
        return max(differences)


def study(target: Target, announce: Announce = quiet) -> Sheet:
    """Run a target and prove its backwards line by line; `announce`: see Truth."""
    truth = Truth(target, announce)
    functions = target.functions[1:] or (None,) * len(target.backwards)
    proofs = tuple(map(prove, repeat(truth), target.backwards, functions))
    if truth.out.size == 1 and not all(proof.ok for proof in proofs):
        # A backward of a loss may multiply by dloss in the end. Without this factor, the lines
        # before are right; if all are, it is the factor that is wrong.
        plain = Truth(target, announce, upstream=1.0)
        without = tuple(map(prove, repeat(plain), target.backwards, functions))
        if not all(proof.ok for proof in without):
            truth, proofs = plain, without
    variants = (study(variant, announce) for variant in target.variants)
    return Sheet(truth, proofs, tuple(variants))


def align(forward: Function, steps: list[Step], proof: Proof) -> list[SheetRow]:
    """Return the lines of a forward with the lines of a backward, from top to bottom."""
    backward: dict[int, list[BackwardLine]] = {}
    preparing, current = list[BackwardLine](), len(steps)
    for line in proof.lines:
        if line.is_return:
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
    last = forward.returned
    rows: list[tuple[int, str, str, Step | None]] = [
        (forward.node.lineno, forward.signature, "", None),
        *((s.statement.line, s.statement.text, s.statement.shape, s) for s in steps),
        (last.line, last.text, "", None),
    ]
    return [
        SheetRow(index, *row, tuple(reversed(backward.get(index, []))))
        for index, row in enumerate(rows, -1)
    ]
