"""Prove a backward: run it line by line and compare each gradient with the expected one.

A line is right if what it computes is the gradient of a value of forward, or a part of it. If a
returned gradient is wrong, the first wrong line has a mistake, or a line is missing. Later lines
may be wrong only because of it; they are judged in a run with its value corrected. A line that
assigns a name that also occurs in forward must give it the same value.
"""

import ast
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tinygpt_np.gradcheck.calls import SELF, describe
from tinygpt_np.gradcheck.function_check import FunctionCheck
from tinygpt_np.study.proof.accounts import part_through
from tinygpt_np.study.proof.backward_trace import BackwardTrace, trace_backward
from tinygpt_np.study.proof.blame import Blame, Corrections, Mistake
from tinygpt_np.study.proof.causes import Backward
from tinygpt_np.study.proof.judged import Judged
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.proof.verdicts import (
    BackwardLine,
    GradientVerdict,
    Proof,
    Status,
    combined_status,
)
from tinygpt_np.study.source.parse import Function
from tinygpt_np.study.source.paths import differentiated, leaf
from tinygpt_np.study.source.steps import compiled


def prove(truth: Truth, function: Function, callable_: Callable[..., Any] | None = None) -> Proof:
    """Run a backward line by line and check each line.

    With `callable_`, the backward as a Python function, also check that calling it gives the same
    gradients and that it does not change or alias its inputs.
    """
    prover = Prover(truth, function)
    lines, trace = prover.lines, prover.trace
    overwriting = [i for i, each in enumerate(trace.executed) if each.overwrites_input]
    if prover.is_right and overwriting:
        what = "an input of backward in place: the upstream gradient, or what was saved"
        prover.mark(overwriting[0], "wrong", f"changes {what}")
    if callable_ is not None and prover.is_right:
        prover.check_call(callable_)
    backward = Backward(truth, trace, lines, prover.judged.pairs)
    wrong = [index for index, line in enumerate(lines) if line.status == "wrong"]
    for index, cause in [(index, backward.cause(index)) for index in wrong]:
        lines[index] = with_cause(lines[index], cause)
    for step in (*trace.not_reached, None) if trace.raised else ():
        each = step.statement if step else replace(function.returned, shape="")
        lines.append(BackwardLine(step, each.line, each.text, each.shape, status="unreached"))
    for mistake in sorted(prover.blame.mistakes, key=lambda each: -each.index):
        lines[mistake.index + 1 : mistake.index + 1] = prover.missing_lines(mistake)
    return Proof(function, tuple(lines), trace)


class Prover:
    """A run of one backward and the verdicts on its lines."""

    def __init__(self, truth: Truth, function: Function) -> None:
        self.truth, self.target, self.function = truth, truth.target, function
        signature = compiled(ast.Lambda(function.node.args, ast.Constant(None)))
        parameters = inspect.signature(eval(signature, dict(self.target.module))).parameters
        self.defaults = {n: p.default for n, p in parameters.items() if p.default is not p.empty}
        self.trace = self.run({})
        self.judged = Judged(truth, self.trace)
        self.blame = Blame(truth, self.judged, self.run)
        self.lines = [self.line(index) for index in range(len(self.trace.executed))]
        if not self.trace.raised:
            self.lines.append(self.returned())

    def run(self, corrections: Corrections) -> BackwardTrace:
        """Run the backward with copies of its inputs, because a wrong one may change them."""
        args = {**self.defaults, **self.truth.given(self.function)}
        # A wrong backward may also divide by zero; the result is checked.
        with np.errstate(all="ignore"):
            return trace_backward(self.function, self.target.module, args, corrections)

    @property
    def is_right(self) -> bool:
        """Whether no line is wrong or missing so far."""
        return not self.blame.mistakes and all(line.status != "wrong" for line in self.lines)

    def mark(self, index: int, status: Status, message: str) -> None:
        """Change the status of a line."""
        self.lines[index] = replace(self.lines[index], status=status, message=message)

    def line(self, index: int) -> BackwardLine:
        """Return the verdict on a step."""
        executed, reverses = self.trace.executed[index], self.judged.reverses[index]
        statement = executed.step.statement
        gradients = tuple(self.gradients(index))
        uses = [g.pair.use for g in gradients if g.pair and g.pair.use is not None]
        fused = self.judged.fused(index) if gradients else []
        line = BackwardLine(
            executed.step, statement.line, statement.text, statement.shape,
            next(iter([*uses, *reverses]), None), gradients, executed.values,
            combined_status(gradients), fused=tuple(dict.fromkeys(name for _, name in fused)),
        )  # fmt: skip
        if (verdict := self.verdict(index, gradients)) is None:
            return line
        status, message, cause = verdict
        return replace(line, status=status, message=message, cause=cause)

    def gradients(self, index: int) -> Iterator[GradientVerdict]:
        """Yield the verdicts on the gradients that a step sets: as blamed, or as the step ran."""
        blamed = {v.name: v for m in self.mistakes_at(index) for v in m.verdicts}
        for verdict in self.judged.verdicts_at(index):
            verdict = blamed.get(verdict.name, verdict)
            if verdict.status != "wrong" or not self.is_harmless(index, verdict):
                yield verdict

    def is_harmless(self, index: int, verdict: GradientVerdict) -> bool:
        """Return whether a name is not a gradient, although it is called so, and need not be."""
        if self.judged.is_right:
            return True
        caused = {each.index for each in self.blame.mistakes} & {
            *self.trace.ancestors(index),
            index,
        }
        return not caused and self.blame.judged.is_right

    def mistakes_at(self, index: int) -> list[Mistake]:
        """Return the mistakes in a step, not those after it."""
        return [m for m in self.blame.mistakes if m.index == index and not m.missing]

    def verdict(
        self, index: int, gradients: Sequence[GradientVerdict]
    ) -> tuple[Status, str, str] | None:
        """Return status, message and cause of a step; None if its gradients say all."""
        if error := self.trace.executed[index].error:
            if (index, "") not in self.blame.left:
                return "inherited", because_of(self.blame.mistakes), ""
            return "wrong", f"raises {error}", ""
        if found := self.mistakes_at(index):
            return self.blamed(found[0])
        if wrong := next((gradient for gradient in gradients if gradient.status == "wrong"), None):
            return self.not_blamed(index, wrong)
        comment = self.judged.comments.get(index)
        return ("warning", comment, "") if comment else None

    def blamed(self, mistake: Mistake) -> tuple[Status, str, str]:
        """Return the verdict on a step with a mistake; in a loop, only its first run is blamed."""
        step = self.trace.executed[mistake.index].step
        for index in (other.index for other in self.blame.mistakes if other.index < mistake.index):
            first = self.trace.executed[index].step
            if first.statement.line == step.statement.line:
                return "inherited", f"as with {first.iteration}", ""
        return "wrong", mistake.message, mistake.cause

    def not_blamed(self, index: int, wrong: GradientVerdict) -> tuple[Status, str, str]:
        """Return the verdict on a wrong step, or return, without a known mistake of its own."""
        is_return = index == len(self.trace.executed)
        earlier = range(index) if is_return else self.trace.ancestors(index)
        causes = [each for each in self.blame.mistakes if each.index in earlier]
        if causes and not (is_return and wrong.name in self.still_wrong):
            return "inherited", because_of(causes), ""
        names = [n for i, n in sorted(self.blame.left) if i in earlier and n]
        if names and not (is_return and self.blame.mistakes):
            return "inherited", f"because of {', '.join(dict.fromkeys(names))}", ""
        message = f"returned: {wrong.problem}" if is_return else wrong.problem
        return "wrong", message, wrong.row.cause

    @property
    def still_wrong(self) -> set[str]:
        """The returned gradients that are wrong although all known mistakes are corrected."""
        judged, left = self.blame.judged, self.blame.left
        end, results = len(judged.trace.executed), judged.results
        corrected = {(i, name) for i, names in self.blame.corrections.items() for name in names}
        if any(index < end for index, _ in judged.wrong - left - corrected):
            return set()  # An item that could not be corrected may be the reason.
        return {results[name].name for index, name in self.blame.left if index == end and name}

    def returned(self) -> BackwardLine:
        """Return the verdict on the return statement: the gradient of each argument."""
        statement = self.trace.end.statement
        line = BackwardLine(None, statement.line, statement.text)
        if problem := self.judged.problem:
            if (len(self.trace.executed), "") not in self.blame.left:
                return replace(line, status="inherited", message=because_of(self.blame.mistakes))
            return replace(line, status="wrong", message=problem)
        gradients = tuple(self.judged.results.values())
        line = replace(line, gradients=gradients, status=combined_status(gradients))
        wrong = [gradient for gradient in gradients if gradient.status == "wrong"]
        wrong.sort(key=lambda gradient: gradient.name not in self.still_wrong)
        if not wrong:
            return line
        status, message, cause = self.not_blamed(len(self.trace.executed), wrong[0])
        return replace(line, status=status, message=message, cause=cause)

    def missing_lines(self, mistake: Mistake) -> list[BackwardLine]:
        """Return a line for each term that is missing after a step."""
        found, step = list[BackwardLine](), self.trace.executed[mistake.index].step
        for use in mistake.missing:
            name = mistake.verdicts[0].name
            message = f"{name} lacks the part through {part_through(self.truth, use)}"
            line = step.statement.line
            absent = f"a condition is missing: `{name}` is None, and it should be a gradient"
            cause = absent if mistake.verdicts[0].found is None else ""
            found.append(BackwardLine(
                None, line, f"{name} += …", reverses=use, status="missing", message=message,
                cause=cause,
            ))  # fmt: skip
        return found

    def check_call(self, callable_: Callable[..., Any]) -> None:
        """Mark lines if calling the backward fails, or does not give what its lines give.

        A returned gradient must not share memory with an input or another gradient. The function
        may differ from its lines because it is decorated, or redefined further down.
        """
        target, truth, lines = self.target, self.truth, self.lines
        args = {name: arg for name, arg in target.args.items() if name != SELF}
        upstream = truth.trace.upstream(truth.doutput)
        try:
            check = FunctionCheck(
                target.functions[0], args, target.wrt, backward=callable_, seed=target.seed,
                doutput=upstream,
            )  # fmt: skip
            ran = check.run(callable_)
            problems, gradients = dict(ran.problems), ran.gradients
        except Exception as error:
            problems, gradients = {target.wrt[0]: [f"raises {describe(error)}"]}, {}
        differs = "calling the function returns another gradient than its lines; is it decorated?"
        for name, gradient in gradients.items():
            row = truth.result(name).compare(gradient)
            if row.problems and name not in problems:
                problems[name] = [f"d{leaf(name)}: {row.problems[0]}: {differs}"]
        for name, found in problems.items():
            setting = [
                index
                for index, line in enumerate(lines)
                if any(leaf(name) in differentiated(each) for each in line.values)
            ]
            index = setting[-1] if setting and differs not in found[0] else -1
            if lines[index].status != "wrong":
                self.mark(index, "wrong", found[0])


def with_cause(line: BackwardLine, cause: str) -> BackwardLine:
    """Give a line a cause, and its wrong gradients too."""
    gradients = (
        replace(g, row=replace(g.row, cause=cause)) if g.status == "wrong" else g
        for g in line.gradients
    )
    return replace(line, cause=cause, gradients=tuple(gradients))


def because_of(mistakes: Iterable[Mistake]) -> str:
    """Return the message of a line that is wrong only because of earlier ones."""
    names = (name for mistake in mistakes for name in mistake.names)
    return f"because of {', '.join(dict.fromkeys(names))}"
