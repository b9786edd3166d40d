"""Prove a backward: run it line by line and compare each gradient with the expected one.

A line is wrong if it does not compute the gradient. If it assigns a name that also occurs in
forward, the value must be the same; a difference is an error if a returned gradient is wrong, and a
warning otherwise.

The first wrong line has a mistake. A later wrong line may only inherit the error. To find out, the
forward line that it reverses is differentiated alone, with the gradients that the backward line
reads, wrong as they are. If that gives the result of the line, the line inherits its error.
"""

import ast
import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np

from tinygpt_np.gradcheck.calls import describe
from tinygpt_np.gradcheck.function_check import FunctionCheck
from tinygpt_np.storage.parameters import Tensors
from tinygpt_np.study.proof.backward_trace import param_gradients, trace_backward
from tinygpt_np.study.proof.causes import Backward
from tinygpt_np.study.proof.pairing import Pair, pair, reversed_steps
from tinygpt_np.study.proof.truth import Expected, Truth
from tinygpt_np.study.proof.verdicts import (
    BackwardLine,
    GradientVerdict,
    Proof,
    Status,
    broadcasts_to,
    combined_status,
    compare,
    nearly_equal,
)
from tinygpt_np.study.source.parse import Function
from tinygpt_np.study.source.shapes import Sizes, contradicts
from tinygpt_np.study.source.steps import compiled
from tinygpt_np.study.source.targets import gradients_by_name
from tinygpt_np.study.source.trace import Value


def prove(truth: Truth, function: Function, callable_: Callable[..., Any] | None = None) -> Proof:
    """Run a backward line by line and check each line.

    With `callable_`, the backward as a Python function, also check that calling it gives the same
    gradients and that it does not change or alias its inputs.
    """
    prover = Prover(truth, function)
    lines, trace = prover.lines, prover.trace
    lines += (prover.line(index) for index in range(len(trace.executed)))
    if not trace.raised:
        lines.append(prover.returned())
        prover.missing += prover.missing_terms()
        # The gradients that are returned, or stored for a parameter.
        results = [g for each in lines for g in each.gradients if not each.step or not g.pair]
        is_right = lines[-1].status != "wrong" and all(g.status == "right" for g in results)
        if is_right and not prover.missing:
            lines[:] = map(without_error, lines)
    prover.mark_inherited()
    overwriting = [i for i, each in enumerate(trace.executed) if each.overwrites_input]
    if prover.is_right and overwriting:
        what = "an input of backward in place: the upstream gradient, or what was saved"
        prover.mark(overwriting[0], "wrong", f"changes {what}")
    if callable_ is not None and prover.is_right:
        prover.check_call(callable_)
    backward = Backward(truth, trace, lines, prover.pairs)
    wrong = [index for index, line in enumerate(lines) if line.status == "wrong"]
    for index, cause in [(index, backward.cause(index)) for index in wrong]:
        lines[index] = with_cause(lines[index], cause)
    for step in (*trace.not_reached, None) if trace.raised else ():
        each = step.statement if step else replace(function.returned, shape="")
        lines.append(BackwardLine(step, each.line, each.text, each.shape, status="unreached"))
    for index, line in sorted(prover.missing, key=lambda each: -each[0]):
        lines.insert(index + 1, line)
    return Proof(function, tuple(lines), trace)


class Prover:
    """A run of one backward and the verdicts on its lines."""

    def __init__(self, truth: Truth, function: Function) -> None:
        self.truth, self.target, self.function = truth, truth.target, function
        self.lines: list[BackwardLine] = []
        # The missing lines, each with the index of the step after which it should run.
        self.missing: list[tuple[int, BackwardLine]] = []
        names = [name for name in function.arguments if name not in ("self", function.upstream)]
        # Copies, because a wrong backward may change its inputs.
        given = {
            function.upstream: truth.doutput.copy(),
            "saved" if "saved" in names else names[0]: copy.deepcopy(truth.saved),
        }
        signature = compiled(ast.Lambda(function.node.args, ast.Constant(None)))
        parameters = inspect.signature(eval(signature, dict(self.target.module))).parameters
        defaults = {n: p.default for n, p in parameters.items() if p.default is not p.empty}
        args = {**defaults, **given, **self.target.backward_args(function)}
        # A wrong backward may also divide by zero; the result is checked below.
        with np.errstate(all="ignore"):
            self.trace = trace_backward(function, self.target.module, args)
        steps = [each.step for each in self.trace.executed]
        self.reverses = reversed_steps(truth.trace, function, steps)
        self.pairs = pair(truth.trace, truth.differentiable, steps, self.reverses)
        # The expected sum of the terms that each gradient has so far.
        self.accumulated: dict[Value, Expected] = {}
        for value in {each.value for each in self.pairs.values()}:
            self.pairs |= self.pairs_that_fit(value)
        self.sizes = Sizes()
        self.forward_names = {value.name: value for value in truth.trace.values()}

    @property
    def is_right(self) -> bool:
        """Whether no line is wrong or missing so far."""
        return not self.missing and all(line.status != "wrong" for line in self.lines)

    def mark(self, index: int, status: Status, message: str) -> None:
        """Change the status of a line."""
        self.lines[index] = replace(self.lines[index], status=status, message=message)

    def line(self, index: int) -> BackwardLine:
        """Check a step."""
        executed = self.trace.executed[index]
        statement = executed.step.statement
        gradients = (*self.gradients(index), *self.params(index))
        pairs = [p for name in statement.sets if (p := self.pairs.get((index, name)))]
        uses = [p.use for p in pairs if p.use is not None]
        line = BackwardLine(
            executed.step, statement.line, statement.text, statement.shape,
            next(iter([*uses, *self.reverses[index]]), None), gradients, executed.values,
            combined_status(gradients), fused=self.fused(index),
        )  # fmt: skip
        if executed.error:
            return replace(line, status="wrong", message=f"raises {executed.error}")
        wrong = next((g for g in gradients if g.status == "wrong"), None)
        if wrong is not None:
            return replace(line, status="wrong", message=wrong.problem, cause=wrong.row.cause)
        warning = next(self.warnings(index), "")
        return replace(line, status="warning", message=warning) if warning else line

    def gradients(self, index: int) -> Iterator[GradientVerdict]:
        """Check the names d<name> that a step sets."""
        executed = self.trace.executed[index]
        for name in executed.step.statement.sets:
            found, pair = executed.values.get(name), self.pairs.get((index, name))
            if pair is None or self.truth.trace.data(pair.value) is None or executed.error:
                continue
            value, use = pair.value, pair.use
            expected = self.truth.total(value) if use is None else self.truth.use(value, use)
            later = range(index + 1, len(self.trace.executed))
            if any(self.pairs.get((i, name)) == pair for i in later):
                row = expected.compare(0.0)
                yield GradientVerdict(name, pair, "partial", row, found, expected)
                continue
            before = self.accumulated.get(pair.value)
            total = expected if before is None else before.plus(expected)
            self.accumulated[pair.value] = total
            verdict = compare(name, pair, found, total)
            if verdict.status == "wrong" and self.may_be_continued(index, name, pair):
                yield replace(verdict, status="partial")
                continue
            if before is not None and name in executed.added:
                term = compare(name, pair, executed.added[name], expected, is_added=True)
                # The term shows best what is wrong. A right term does not make a wrong sum right.
                is_sum_wrong = term.status == "right" and verdict.status == "wrong"
                verdict = verdict if is_sum_wrong else term
            is_term = pair.use is not None and len(self.truth.trace.uses(pair.value)) > 1
            yield replace(verdict, is_term=is_term)

    def pairs_that_fit(self, value: Value) -> dict[tuple[int, str], Pair]:
        """Pair the lines that set a gradient with other uses of the value, if a term does not fit.

        Without a comment, the pairing of lines and uses is a guess. If the sum is right but a term
        fits no use, all lines are paired with the value as a whole.
        """
        keys = sorted(key for key, each in self.pairs.items() if each.value == value)
        if all(self.pairs[key].use is None for key in keys):
            return {}
        if len(keys) == 1 and len(self.truth.trace.uses(value)) == 1:  # There is no choice.
            return {}
        self.accumulated = {}
        terms = [g for index, name in keys for g in self.gradients(index) if g.name == name]
        self.accumulated = {}
        if all(term.status != "wrong" for term in terms):
            return {}
        total, (_, name) = self.truth.total(value), keys[0]
        last = self.trace.executed[keys[-1][0]].values.get(name)
        is_right = compare(name, None, last, total).status == "right"
        free = [key for key in keys if is_right or self.pairs[key].use not in self.reverses[key[0]]]
        quoted = {self.pairs[key].use for key in keys if key not in free}
        unused = [use for use in reversed(self.truth.trace.uses(value)) if use not in quoted]
        found: dict[tuple[int, str], Pair] = {}
        for key in free:
            executed = self.trace.executed[key[0]]
            term = executed.added.get(name, executed.values.get(name))
            for use in unused:
                if compare(name, None, term, self.truth.use(value, use)).status == "right":
                    found[key] = Pair(value, use)
                    unused.remove(use)
                    break
        unmatched = [key for key in free if key not in found]
        if is_right:
            return dict.fromkeys(keys, Pair(value, None)) if unmatched else found
        return found | {key: Pair(value, use) for key, use in zip(unmatched, unused, strict=False)}

    def may_be_continued(self, index: int, name: str, pair: Pair) -> bool:
        """Return whether a later line would have added to a gradient, had no step raised."""
        if not self.trace.raised or pair.use in self.reverses[index]:
            return False
        raising = self.trace.executed[-1].step.statement.line
        later = (s for s in self.function.statements if (s.node.end_lineno or 0) >= raising)
        return any(name in statement.sets for statement in later)

    def params(self, index: int) -> Iterator[GradientVerdict]:
        """Check the gradients of parameters that a step stores."""
        for name, found in self.trace.executed[index].params.items():
            if name in self.target.params:
                yield compare(name, None, found, self.truth.param(name))

    def warnings(self, index: int) -> Iterator[str]:
        """Yield the differences of a step from forward and from its comment."""
        executed = self.trace.executed[index]
        for name, value in executed.values.items():
            base = self.forward_names.get(name.removeprefix("d"))
            if name in self.forward_names:
                if not nearly_equal(value, self.truth.trace.data(self.forward_names[name])):
                    yield f"{name} is not what it was in forward"
            elif base is not None and name.startswith("d"):
                data = self.truth.trace.data(base)
                if data is None is not value:
                    yield f"{base.name} is None, so {name} must be None"
                elif (index, name) in self.pairs and np.shape(value) != np.shape(data):
                    shapes = f"has the shape {np.shape(value)}, and {base.name} has"
                    yield f"{name} {shapes} {np.shape(data)}"
        stated = executed.step.statement.shape
        values: list[Any] = [*executed.values.values()]
        shapes = [np.shape(cast(Any, v)) for v in values if isinstance(v, np.ndarray)]
        if stated and len(shapes) == 1 and contradicts(stated, shapes[0], self.sizes):
            yield f"the comment says {stated}, but the shape is {shapes[0]}"

    def fused(self, index: int) -> tuple[str, ...]:
        """Return the names without a verdict on which the gradients of a step depend."""
        found: list[str] = []
        sets = self.trace.sets(index)
        todo = [index] if any((index, name) in self.pairs for name in sets) else []
        while todo:
            for source in self.trace.sources(todo.pop()):
                names = self.trace.sets(source)
                if not any((source, n) in self.pairs or n in self.forward_names for n in names):
                    found += [name for name in names if name not in found]
                    todo.append(source)
        return tuple(found)

    def returned(self) -> BackwardLine:
        """Check the return statement: the gradient of each argument and parameter."""
        statement = self.trace.end.statement
        line = BackwardLine(None, statement.line, statement.text)
        if self.trace.error:
            return replace(line, status="wrong", message=f"raises {self.trace.error}")
        try:
            found = gradients_by_name(self.target, self.trace.returned)
        except ValueError as error:
            return replace(line, status="wrong", message=str(error))
        known = {*found, *param_gradients(self.trace.before[-1])}
        found |= {name: None for name in self.target.params if name not in known}
        gradients = tuple(self.returned_for(name, gradient) for name, gradient in found.items())
        line = replace(line, gradients=gradients, status=combined_status(gradients))
        wrong = [gradient for gradient in gradients if gradient.status == "wrong"]
        if not wrong:
            return line
        message = f"returned: {'; '.join(gradient.problem for gradient in wrong)}"
        return replace(line, status="wrong", message=message, cause=wrong[0].row.cause)

    def returned_for(self, name: str, gradient: Any) -> GradientVerdict:
        """Check what is returned for an argument, or for a parameter, without broadcasting."""
        expected, is_param = self.truth.result(name), name in self.target.params
        row = expected.compare(gradient)
        pair = None if is_param else Pair(Value(name, -1), None)
        status = "right" if row.ok else "wrong"
        name = name if is_param else f"d{name}"
        return GradientVerdict(name, pair, status, row, gradient, expected)

    def missing_terms(self) -> Iterator[tuple[int, BackwardLine]]:
        """Yield a line for each term that a gradient lacks, with the index of the step before."""
        last: dict[Value, int] = {}
        reversed_uses: dict[Value, set[int | None]] = {}
        for (index, _), each in sorted(self.pairs.items()):
            last[each.value] = index
            reversed_uses.setdefault(each.value, set()).add(each.use)
        for value, uses in reversed_uses.items():
            if None in uses or self.lines[last[value]].status == "wrong":
                continue
            for use in self.truth.trace.uses(value):
                if use not in uses and self.truth.use(value, use).measured.values.any():
                    statement = self.truth.trace.steps[use].statement
                    part = f"the part through line {statement.line}, {statement.text}"
                    line = self.trace.executed[last[value]].step.statement.line
                    yield last[value], BackwardLine(
                        None, line, f"d{value.name} += …", reverses=use, status="missing",
                        message=f"d{value.name} lacks {part}",
                    )  # fmt: skip

    # Lines that are wrong because of earlier lines

    def mark_inherited(self) -> None:
        """Mark the lines that are wrong only because of earlier ones, or of missing ones."""
        lines, trace = self.lines, self.trace
        for index, line in enumerate(lines):
            if line.status == "wrong":
                for i in [i for i in trace.ancestors(index) if lines[i].status == "warning"]:
                    depends_on_wrong = any(lines[j].status == "wrong" for j in trace.ancestors(i))
                    if not depends_on_wrong and self.makes_results_wrong(i):
                        lines[i] = replace(lines[i], status="wrong")
        self.mark_common_source()
        for index, line in enumerate(lines):
            # The return depends on all wrong lines.
            earlier = trace.ancestors(index) if line.step else range(index)
            wrong = [i for i in earlier if lines[i].status == "wrong"]
            wrong += [i for i, _ in self.missing if i in earlier]
            if line.status == "wrong" and wrong and self.is_right_in_itself(index):
                names = dict.fromkeys(name for i in wrong for name in trace.sets(i))
                self.mark(index, "inherited", f"because of {', '.join(names)}")

    def makes_results_wrong(self, index: int) -> bool:
        """Return whether the results are wrong because of what a line with a warning sets.

        Values that differ from forward are corrected and the rest is run again. The answer is yes
        if the right value is not known: for a wrong shape, or a name that forward does not have.
        """
        original = {name: self.truth.trace.data(v) for name, v in self.forward_names.items()}
        values = self.trace.executed[index].values
        corrected = {
            n: original[n] for n, v in values.items() if n in original and v is not original[n]
        }
        if not corrected or not {*values} <= {*original}:
            return True
        try:
            found = gradients_by_name(self.target, self.trace.rerun(index + 1, corrected))
        except ValueError:
            return False
        return all(self.truth.result(name).compare(each).ok for name, each in found.items())

    def mark_common_source(self) -> None:
        """Mark the line without a verdict that all wrong lines use, such as a dz without a z."""
        lines, trace = self.lines, self.trace
        every = [i for i, line in enumerate(lines) if line.status == "wrong" and line.step]
        wrong = [i for i in every if not {*every} & {*trace.ancestors(i)}]
        fused = [
            {i for i in trace.ancestors(w) if {*trace.sets(i)} & {*lines[w].fused}} for w in wrong
        ]
        common = set[int].intersection(*fused) if len(wrong) > 1 else set[int]()
        if common:
            names = ", ".join(dict.fromkeys(n for w in wrong for n in trace.sets(w)))
            reason = f"because everything computed from it is wrong ({names})"
            self.mark(max(common), "wrong", f"probably wrong, {reason}")

    def is_right_in_itself(self, index: int) -> bool:
        """Return whether a line that depends on a wrong one has no mistake of its own, if known."""
        line = self.lines[index]
        gradient = next((g for g in line.gradients if g.pair is not None), None)
        if line.step is None or line.reverses is None or gradient is None or gradient.pair is None:
            return True
        incoming = self.incoming_gradients(index, line.reverses)
        executed = self.trace.executed[index]
        # The term that a line adds does not depend on the rest of the sum.
        known = {*(f"d{name}" for name in incoming), *executed.added} if incoming else set[str]()
        not_right = ("wrong", "inherited", "warning")
        wrong = [i for i in self.trace.sources(index) if self.lines[i].status in not_right]
        if incoming is None or any(not set(self.trace.sets(i)) & known for i in wrong):
            # It reads a wrong value, not only wrong gradients, so its right result is not known.
            return True
        found = executed.added.get(gradient.name, executed.values.get(gradient.name))
        if found is None or not broadcasts_to(np.shape(found), np.shape(gradient.expected.value)):
            return False
        return self.truth.is_locally_right(gradient.pair.value, line.reverses, incoming, found)

    def incoming_gradients(self, index: int, reverses: int) -> Tensors | None:
        """Return the gradients, before a line, of what its forward line sets; None if unusable."""
        found: Tensors = {}
        for name in self.truth.trace.steps[reverses].statement.sets:
            value = Value(name, reverses)
            if value in self.truth.differentiable:
                gradient: Any = self.trace.before[index].get(f"d{name}")
                has_shape = np.shape(gradient) == np.shape(self.truth.trace.data(value))
                if gradient is None or not has_shape or not np.isfinite(gradient).all():
                    return None
                if not self.is_gradient_of(value, index):
                    return None
                found[name] = gradient
        return found or None

    def is_gradient_of(self, value: Value, index: int) -> bool:
        """Return whether d<name> is, before a line, the gradient of this value of the name."""
        name = f"d{value.name}"
        setting = [i for i in range(index) if name in self.trace.sets(i)]
        if not setting:  # It is an argument of the backward.
            return value == self.truth.trace.definition(value.name, len(self.truth.trace.steps))
        gradients = (g for g in self.lines[setting[-1]].gradients if g.name == name)
        return any(g.pair is not None and g.pair.value == value for g in gradients)

    def check_call(self, callable_: Callable[..., Any]) -> None:
        """Mark lines if calling the backward fails, or does not give what its lines give.

        A returned gradient must not share memory with an input or another gradient. The function
        may differ from its lines because it is decorated, or redefined further down.
        """
        target, truth, lines = self.target, self.truth, self.lines
        check = FunctionCheck(
            target.functions[0], target.args, target.wrt, seed=target.seed, doutput=truth.doutput
        )

        def backward(doutput: np.ndarray, saved: Any) -> dict[str, Any]:
            return gradients_by_name(target, callable_(doutput, saved))

        try:
            ran = check.run(backward)
            problems, gradients = dict(ran.problems), ran.gradients
        except Exception as error:
            problems, gradients = {target.wrt[0]: [f"raises {describe(error)}"]}, {}
        differs = "calling the function returns another gradient than its lines; is it decorated?"
        for name, gradient in gradients.items():
            row = truth.result(name).compare(gradient)
            if not row.ok and name not in problems:
                problems[name] = [f"d{name}: {row.messages[0]}: {differs}"]
        for name, found in problems.items():
            setting = [i for i, line in enumerate(lines) if f"d{name}" in line.values]
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


def without_error(line: BackwardLine) -> BackwardLine:
    """Turn an error into a warning: what the line sets is not a gradient, or it is not used."""
    if line.status != "wrong":
        return line
    gradients = (replace(g, status="warning") if g.status == "wrong" else g for g in line.gradients)
    return replace(line, status="warning", gradients=tuple(gradients))
