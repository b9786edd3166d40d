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
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np

from tinygpt_np.gradcheck.function_check import BackwardRun, FunctionCheck
from tinygpt_np.storage.parameters import Tensors
from tinygpt_np.study.proof.backward_trace import BackwardTrace, param_gradients, trace_backward
from tinygpt_np.study.proof.pairing import Pair, pair, reversed_steps
from tinygpt_np.study.proof.truth import Expected, Truth
from tinygpt_np.study.proof.verdicts import (
    BackwardLine,
    GradientVerdict,
    Proof,
    broadcasts_to,
    combined_status,
    compare,
    nearly_equal,
    problem,
)
from tinygpt_np.study.source.parse import Function
from tinygpt_np.study.source.shapes import Sizes, contradicts
from tinygpt_np.study.source.targets import Target, gradients_by_name
from tinygpt_np.study.source.trace import Namespace, Value, compile_node


def prove(truth: Truth, function: Function, callable_: Callable[..., Any] | None = None) -> Proof:
    """Run a backward line by line and check each line.

    With `callable_`, the backward as a Python function, also check that calling it gives the same
    gradients and that it does not change or alias its inputs.
    """
    prover = Prover(truth, function)
    lines = [prover.line(index) for index in range(len(prover.trace.executed))]
    if not prover.trace.raised:
        lines.append(prover.returned())
        prover.mark_missing_terms(lines)
        if results_are_right(lines):
            lines = [without_error(line) for line in lines]
    lines = mark_inherited(truth, prover.trace, lines)
    if all(line.status != "wrong" for line in lines):
        mark_overwritten_input(lines, prover.trace)
    if callable_ is not None and all(line.status != "wrong" for line in lines):
        check_call(lines, truth, callable_)
    return Proof(function, (*lines, *unreached(prover)), prover.trace)


class Prover:
    """A run of one backward and the verdicts on its lines."""

    def __init__(self, truth: Truth, function: Function) -> None:
        self.truth, self.function = truth, function
        target, (upstream, saved) = truth.target, upstream_and_saved(function)
        defaults = defaults_of(function, target.module)
        # Copies, because a wrong backward may change its inputs.
        given = {upstream: truth.doutput.copy(), saved: copy.deepcopy(truth.saved)}
        args = {**defaults, **given, **target.backward_args()}
        # A wrong backward may also divide by zero; the result is checked below.
        with np.errstate(all="ignore"):
            self.trace = trace_backward(function, target.module, args)
        steps = [each.step for each in self.trace.executed]
        self.reverses = reversed_steps(truth.trace, function, steps)
        self.pairs = pair(truth.trace, truth.differentiable, steps, self.reverses)
        # The expected sum of the terms that each gradient has so far.
        self.accumulated: dict[Value, Expected] = {}
        for value in {each.value for each in self.pairs.values()}:
            self.pairs |= self.pairs_that_fit(value)
        self.sizes = Sizes()
        self.forward_names = {value.name: value for value in truth.trace.values()}

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
            message, cause = problem(wrong)
            return replace(line, status="wrong", message=message, cause=cause)
        warning = next(self.warnings(index), "")
        return replace(line, status="warning", message=warning) if warning else line

    def gradients(self, index: int) -> Iterator[GradientVerdict]:
        """Check the names d<name> that a step sets."""
        executed = self.trace.executed[index]
        for name in executed.step.statement.sets:
            found, pair = executed.values.get(name), self.pairs.get((index, name))
            if pair is None or self.truth.trace.data(pair.value) is None or executed.error:
                continue
            expected = self.expected(pair)
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
            fitting = (use for use in unused if self.fits(name, term, value, use))
            if (use := next(fitting, None)) is not None:
                found[key] = Pair(value, use)
                unused.remove(use)
        unmatched = [key for key in free if key not in found]
        if is_right:
            return dict.fromkeys(keys, Pair(value, None)) if unmatched else found
        return found | {key: Pair(value, use) for key, use in zip(unmatched, unused, strict=False)}

    def fits(self, name: str, term: Any, value: Value, use: int) -> bool:
        """Return whether a term is the one that comes from a use of a value."""
        return compare(name, None, term, self.truth.use(value, use)).status == "right"

    def may_be_continued(self, index: int, name: str, pair: Pair) -> bool:
        """Return whether a later line would have added to a gradient, had no step raised."""
        if not self.trace.raised or pair.use in self.reverses[index]:
            return False
        raising = self.trace.executed[-1].step.statement.line
        later = (s for s in self.function.statements if (s.node.end_lineno or 0) >= raising)
        return any(name in statement.sets for statement in later)

    def expected(self, pair: Pair) -> Expected:
        """Return the expected gradient of a value, or of one use of it."""
        if pair.use is None:
            return self.truth.total(pair.value)
        return self.truth.use(pair.value, pair.use)

    def params(self, index: int) -> Iterator[GradientVerdict]:
        """Check the gradients of parameters that a step stores."""
        for name, found in self.trace.executed[index].params.items():
            if name in self.truth.target.params:
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
        node = self.function.returned
        line = BackwardLine(None, node.lineno, self.function.text(node), "", None, (), {}, "")
        if self.trace.error:
            return replace(line, status="wrong", message=f"raises {self.trace.error}")
        try:
            found = gradients_by_name(self.truth.target, self.trace.returned)
        except ValueError as error:
            return replace(line, status="wrong", message=str(error))
        known = {*found, *param_gradients(self.trace.before[-1])}
        found |= {name: None for name in self.truth.target.params if name not in known}
        gradients = tuple(self.returned_for(name, gradient) for name, gradient in found.items())
        line = replace(line, gradients=gradients, status=combined_status(gradients))
        wrong = next((g for g in gradients if g.status == "wrong"), None)
        if wrong is None:
            return line
        problems = "; ".join(problem(g)[0] for g in gradients if g.status == "wrong")
        message = f"returned: {problems}"
        return replace(line, status="wrong", message=message, cause=wrong.row.cause)

    def returned_for(self, name: str, gradient: Any) -> GradientVerdict:
        """Check what is returned for an argument, or for a parameter."""
        expected = expected_result(self.truth, name)
        # The shape of a returned gradient must match without broadcasting.
        row = expected.compare(gradient)
        status = "right" if row.ok else "wrong"
        if name in self.truth.target.params:
            return GradientVerdict(name, None, status, row, gradient, expected)
        pair = Pair(Value(name, -1), None)
        return GradientVerdict(f"d{name}", pair, status, row, gradient, expected)

    def mark_missing_terms(self, lines: list[BackwardLine]) -> None:
        """Mark the gradients that lack the term from one of the lines that read the value."""
        last: dict[Value, int] = {}
        reversed_uses: dict[Value, set[int | None]] = {}
        for (index, _), each in sorted(self.pairs.items()):
            last[each.value] = index
            reversed_uses.setdefault(each.value, set()).add(each.use)
        for value, uses in reversed_uses.items():
            line = lines[last[value]]
            if None in uses or line.status == "wrong":
                continue
            for use in sorted(set(self.truth.trace.uses(value)) - cast(set[int], uses)):
                if self.truth.use(value, use).measured.values.any():
                    text = self.truth.trace.steps[use].statement.text
                    message = f"d{value.name} lacks the term from {text}"
                    lines[last[value]] = replace(line, status="wrong", message=message)
                    break


def unreached(prover: Prover) -> Iterator[BackwardLine]:
    """Yield the lines that did not run, because an earlier one raised."""
    function, trace = prover.function, prover.trace
    if not trace.raised:
        return
    for step in trace.steps[len(trace.executed) :]:
        each = step.statement
        yield BackwardLine(step, each.line, each.text, each.shape, None, (), {}, "unreached")
    node = function.returned
    yield BackwardLine(None, node.lineno, function.text(node), "", None, (), {}, "unreached")


def results_are_right(lines: list[BackwardLine]) -> bool:
    """Return whether all gradients that are returned, or stored for a parameter, are right."""
    results = [g for line in lines for g in line.gradients if line.step is None or g.pair is None]
    return lines[-1].status != "wrong" and all(g.status == "right" for g in results)


def without_error(line: BackwardLine) -> BackwardLine:
    """Turn an error into a warning: what the line sets is not a gradient, or it is not used."""
    if line.status != "wrong":
        return line
    gradients = (replace(g, status="warning") if g.status == "wrong" else g for g in line.gradients)
    return replace(line, status="warning", gradients=tuple(gradients))


# Lines that are wrong because of earlier lines


def mark_inherited(
    truth: Truth, trace: BackwardTrace, lines: list[BackwardLine]
) -> list[BackwardLine]:
    """Return the lines, with those that are wrong only because of earlier ones marked."""
    lines = [*lines]

    def depends_on_wrong(index: int) -> bool:
        return any(lines[i].status == "wrong" for i in trace.ancestors(index))

    for index, line in enumerate(lines):
        if line.status == "wrong":
            for i in [i for i in trace.ancestors(index) if lines[i].status == "warning"]:
                if not depends_on_wrong(i) and makes_results_wrong(truth, trace, i):
                    lines[i] = replace(lines[i], status="wrong")
    mark_common_source(trace, lines)
    for index, line in enumerate(lines):
        wrong = [i for i in dependencies(trace, lines, index) if lines[i].status == "wrong"]
        if line.status == "wrong" and wrong and is_right_in_itself(truth, trace, lines, index):
            names = dict.fromkeys(name for i in wrong for name in trace.sets(i))
            message = f"because of {', '.join(names)}"
            lines[index] = replace(line, status="inherited", message=message)
    return lines


def makes_results_wrong(truth: Truth, trace: BackwardTrace, index: int) -> bool:
    """Return whether the results are wrong because of what a line with a warning sets.

    Values that differ from forward are corrected and the rest is run again. The answer is yes
    if the right value is not known: for a wrong shape, or a name that forward does not have.
    """
    original = {v.name: truth.trace.data(v) for v in truth.trace.values()}
    values = trace.executed[index].values
    corrected = {
        n: original[n] for n, v in values.items() if n in original and v is not original[n]
    }
    if not corrected or not {*values} <= {*original}:
        return True
    returned = trace.rerun(index + 1, corrected)
    found = None if returned is None else results(truth.target, returned)
    if found is None:
        return False
    return all(expected_result(truth, name).compare(each).ok for name, each in found.items())


def results(target: Target, returned: Any) -> dict[str, Any] | None:
    """Return the gradients by name, or None if their number or keys do not match."""
    try:
        return gradients_by_name(target, returned)
    except ValueError:
        return None


def expected_result(truth: Truth, name: str) -> Expected:
    """Return the expected gradient of an argument or a parameter."""
    is_param = name in truth.target.params
    return truth.param(name) if is_param else truth.total(Value(name, -1))


def mark_common_source(trace: BackwardTrace, lines: list[BackwardLine]) -> None:
    """Mark the line on which several wrong lines depend, if it has no verdict of its own.

    An example is a dz where forward has no z: if everything computed from it is wrong, so is dz.
    """
    every = [i for i, line in enumerate(lines) if line.status == "wrong" and line.step]
    wrong = [i for i in every if not {*every} & {*trace.ancestors(i)}]
    fused = [{i for i in trace.ancestors(w) if {*trace.sets(i)} & {*lines[w].fused}} for w in wrong]
    common = set[int].intersection(*fused) if len(wrong) > 1 else set[int]()
    if common:
        index = max(common)
        names = ", ".join(dict.fromkeys(n for w in wrong for n in trace.sets(w)))
        message = f"probably wrong, because everything computed from it is wrong ({names})"
        lines[index] = replace(lines[index], status="wrong", message=message)


def dependencies(trace: BackwardTrace, lines: list[BackwardLine], index: int) -> list[int]:
    """Return the earlier lines on which a line depends; the return depends on all wrong ones."""
    if lines[index].step is None:
        return [i for i, line in enumerate(lines[:index]) if line.status in ("wrong", "warning")]
    return trace.ancestors(index)


def is_right_in_itself(
    truth: Truth, trace: BackwardTrace, lines: list[BackwardLine], index: int
) -> bool:
    """Return whether a line that depends on a wrong one has no mistake of its own, if known."""
    line = lines[index]
    gradient = next((g for g in line.gradients if g.pair is not None), None)
    if line.step is None or line.reverses is None or gradient is None or gradient.pair is None:
        return True
    incoming = incoming_gradients(truth, trace, lines, index)
    executed = trace.executed[index]
    # The term that a line adds does not depend on the rest of the sum.
    known = {*incoming, *executed.added} if incoming else set[str]()
    not_right = ("wrong", "inherited", "warning")
    wrong = [i for i in trace.sources(index) if lines[i].status in not_right]
    if incoming is None or any(not set(trace.sets(i)) & known for i in wrong):
        # It reads a wrong value, not only wrong gradients, so its right result is not known.
        return True
    found = executed.added.get(gradient.name, executed.values.get(gradient.name))
    if found is None or not broadcasts_to(np.shape(found), np.shape(gradient.expected.value)):
        return False
    given = {name.removeprefix("d"): array for name, array in incoming.items()}
    return truth.is_locally_right(gradient.pair.value, line.reverses, given, found)


def incoming_gradients(
    truth: Truth, trace: BackwardTrace, lines: list[BackwardLine], index: int
) -> Tensors | None:
    """Return the gradients, before a line, of all names that the reversed forward line sets.

    Return None if one is missing, not finite or has the wrong shape.
    """
    found: Tensors = {}
    reverses = lines[index].reverses
    assert reverses is not None
    for name in truth.trace.steps[reverses].statement.sets:
        value = Value(name, reverses)
        if value in truth.differentiable:
            gradient: Any = trace.before[index].get(f"d{name}")
            has_shape = np.shape(gradient) == np.shape(truth.trace.data(value))
            if gradient is None or not has_shape or not np.isfinite(gradient).all():
                return None
            if not is_gradient_of(value, truth, trace, lines[:index]):
                return None
            found[f"d{name}"] = gradient
    return found or None


def is_gradient_of(
    value: Value, truth: Truth, trace: BackwardTrace, before: list[BackwardLine]
) -> bool:
    """Return whether d<name> is the gradient of this value, not of another value of the name."""
    name = f"d{value.name}"
    setting = [line for i, line in enumerate(before) if name in trace.sets(i)]
    if not setting:  # It is an argument of the backward.
        return value == truth.trace.definition(value.name, len(truth.trace.steps))
    pairs = [g.pair for g in setting[-1].gradients if g.name == name and g.pair is not None]
    return any(pair.value == value for pair in pairs)


# The backward as a Python function


def mark_overwritten_input(lines: list[BackwardLine], trace: BackwardTrace) -> None:
    """Mark the first line that changes in place what the backward was given."""
    index = next((i for i, each in enumerate(trace.executed) if each.overwrites_input), None)
    if index is not None:
        message = "changes an input of backward in place: the upstream gradient, or what was saved"
        lines[index] = replace(lines[index], status="wrong", message=message)


def check_call(lines: list[BackwardLine], truth: Truth, callable_: Callable[..., Any]) -> None:
    """Mark lines if calling the backward fails, or does not give what its lines give.

    A returned gradient must not share memory with an input or another gradient. The function may
    differ from its lines because it is decorated, or redefined further down.
    """
    target = truth.target
    check = FunctionCheck(
        target.functions[0], target.args, target.wrt, seed=target.seed, doutput=truth.doutput
    )

    def backward(doutput: np.ndarray, saved: Any) -> dict[str, Any]:
        return gradients_by_name(target, callable_(doutput, saved))

    try:
        ran = BackwardRun(check, backward)
        problems, gradients = dict(ran.problems), ran.gradients
    except Exception as error:
        problems, gradients = {target.wrt[0]: [f"raises {type(error).__name__}: {error}"]}, {}
    differs = "calling the function returns another gradient than its lines; is it decorated?"
    for name, gradient in gradients.items():
        row = truth.total(Value(name, -1)).compare(gradient)
        if not row.ok and name not in problems:
            problems[name] = [f"d{name}: {row.problems[0]}: {differs}"]
    for name, found in problems.items():
        setting = [i for i, line in enumerate(lines) if f"d{name}" in line.values]
        index = setting[-1] if setting and differs not in found[0] else -1
        if lines[index].status != "wrong":
            lines[index] = replace(lines[index], status="wrong", message=found[0])


def upstream_and_saved(function: Function) -> tuple[str, str]:
    """Return the argument names of the upstream gradient and of what forward saved."""
    names = [name for name in function.arguments if name != "self"]
    return names[0], "saved" if "saved" in names else names[1]


def defaults_of(function: Function, module: Namespace) -> Namespace:
    """Return the default values of the arguments of a backward."""
    args = function.node.args
    named = [*args.posonlyargs, *args.args]
    found = dict(zip([arg.arg for arg in reversed(named)], reversed(args.defaults), strict=False))
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        found |= {arg.arg: default} if default is not None else {}
    return {
        name: eval(compile_node(ast.Expression(default), "eval"), dict(module))
        for name, default in found.items()
    }
