"""The cause of a wrong line: the mistake that makes it differ from what it should set.

The right value of a line is known if it is a gradient, a value of forward, or the result of the
backward. If it is not, the next line that uses it is judged instead. If no change makes the line
itself right, one may make the result right, where a later line completes the gradient.
"""

import ast
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tinygpt_np.gradcheck.verdict import unusable
from tinygpt_np.study.proof.backward_trace import BackwardTrace, param_gradients
from tinygpt_np.study.proof.detached import detached_parts
from tinygpt_np.study.proof.pairing import Pair, is_array
from tinygpt_np.study.proof.repairs import (
    RESULT,
    Operand,
    WrongLine,
    is_number,
    mistakes,
    operands_of,
)
from tinygpt_np.study.proof.truth import Expected, Truth
from tinygpt_np.study.proof.verdicts import BackwardLine, nearly_equal
from tinygpt_np.study.source.paths import Namespace, read
from tinygpt_np.study.source.steps import compiled
from tinygpt_np.study.source.trace import Trace

# The largest relative error of what a corrected line sets.
NEAR = 1e-9
# Mistakes in a factor, for which a message also gives the size of the error.
OF_A_FACTOR = {"a factor is missing", "a factor too many", "the wrong number"}
IsRight = Callable[[Namespace], bool]


@dataclass(frozen=True)
class Goal:
    """A test of what a step sets. index: of the step, or of the return after the last one."""

    index: int
    is_right: IsRight


@dataclass(frozen=True)
class Backward:
    """A backward that was run.

    lines: the verdicts on the executed steps and, if it was reached, on the return. pairs: the
    values whose gradients the steps set.
    """

    truth: Truth
    trace: BackwardTrace
    lines: Sequence[BackwardLine]
    pairs: Mapping[tuple[int, str], Pair]

    def cause(self, index: int) -> str:
        """Return the cause of a wrong line, or ""."""
        # A changed line may divide by zero, or read a number as an array.
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return self.of_line(index)

    def of_line(self, index: int) -> str:
        """Return the cause of a wrong line, or ""."""
        line = self.lines[index]
        if absent := next((g.name for g in line.gradients if g.found is None), ""):
            return f"a condition is missing: `{absent}` is None, and it should be a gradient"
        if line.message.endswith("must be None"):
            return f"a condition is missing: {line.message}"
        if "shares its memory with" in line.message:
            return f"a copy is missing: {line.message}"
        return self.of_change(index) or self.of_constant(line) or self.of_values(line)

    def of_change(self, index: int) -> str:
        """Return the mistake that the smallest change of a line corrects."""
        line, every = self.lines[index], [*self.goals(index)]
        for goal in every[:1] + every[1:][-1:]:
            if found := self.changes(index, goal):
                texts = [f"{mistake}: {how}" for mistake, how in found.items()]
                if {*found} <= OF_A_FACTOR and goal is every[0]:
                    texts[-1] += size_of_error(line)
                return ", or ".join(texts) if len(texts) <= 2 else ""
        return ""

    def of_constant(self, line: BackwardLine) -> str:
        """Return the values of forward that a gradient takes for constants."""
        for g in line.gradients:
            if g.pair is None or g.status != "wrong" or not has_shape(g.found, g.row.shape):
                continue
            if parts := detached_parts(self.truth, g.pair.value, np.asarray(g.found)):
                texts = " and ".join(f"`{part.text}`" for part in parts)
                return f"a path is missing: {g.name} lacks the part through {texts}"
        return ""

    def of_values(self, line: BackwardLine) -> str:
        """Return what the values show of the gradient, or of the result if only one is wrong."""
        last = self.lines[-1]
        causes = [g.row.cause for g in last.gradients if last.is_return and not g.row.ok]
        return line.cause or (causes[0] if len(causes) == 1 else "")

    def goals(self, index: int) -> Iterator[Goal]:
        """Yield what the lines from a wrong one on should set, if it is known."""
        truth, executed = self.truth, self.trace.executed
        forward = {value.name: value for value in truth.trace.values()}
        for i, each in list(enumerate(executed))[index:]:
            statement, before = each.step.statement, self.trace.before[i]
            for name in statement.sets if each.error else ():
                if (pair := self.pairs.get((i, name))) is not None:
                    value, use = pair.value, pair.use
                    expected = truth.total(value) if use is None else truth.use(value, use)
                    is_sum = isinstance(statement.node, ast.AugAssign)
                    yield Goal(i, sets_gradient(name, expected, before, is_sum))
            for g in self.lines[i].gradients:
                if g.status in ("wrong", "inherited"):
                    is_sum = g.name in each.added and g.found is each.added[g.name]
                    is_param = g.name in truth.target.params
                    yield Goal(i, sets_gradient(g.name, g.expected, before, is_sum, is_param))
            same = {n: truth.trace.data(forward[n]) for n in statement.sets if n in forward}
            if i == index and same:
                yield Goal(i, partial(has_values, same))
        if len(self.lines) > len(executed):
            yield Goal(len(executed), partial(has_result, truth))

    def changes(self, index: int, goal: Goal) -> dict[str, str]:
        """Return the mistakes that the smallest changes of a line correct, with a change each."""
        trace = self.trace
        steps = [*(each.step for each in trace.executed), trace.end][: goal.index + 1]
        fused, earlier = {*self.lines[index].fused}, trace.ancestors(index)
        suspects = [index]
        if goal.index == index:
            suspects += (i for i in reversed(earlier) if {*trace.sets(i)} & fused)
        before = trace.namespaces_before(suspects)
        known, called = numbers(self.truth.trace), functions(self.truth.trace)
        return mistakes(WrongLine(steps, before, trace.module, goal.is_right, known, called))


def size_of_error(line: BackwardLine) -> str:
    """Return how much too large or small the wrong gradient of a line is, if it is a multiple."""
    wrong = next((g.name for g in line.gradients if g.status == "wrong"), "")
    size, _, _ = line.cause.partition(", a length")
    return f"; {wrong} is {size}" if size.startswith("too ") else ""


def sets_gradient(
    name: str, expected: Expected, before: Namespace, is_sum: bool, is_param: bool = False
) -> IsRight:
    """Return whether a step sets a gradient to the expected one, or adds the expected term."""

    def is_right(namespace: Namespace) -> bool:
        # The name of a parameter, such as h.0.ln_1.weight, is no path.
        found: Any = param_gradients(namespace).get(name) if is_param else read(namespace, name)
        start: Any = read(before, name) if is_sum else 0.0
        # A repair may call a function that returns several values.
        if not has_shape(found, expected.measured.probes.shape):
            return False
        return is_near(expected, found - start)

    return is_right


def has_shape(found: Any, shape: tuple[int, ...]) -> bool:
    """Return whether a value may be a gradient of this shape."""
    return is_array(found) and np.shape(found) == shape


def has_values(values: Namespace, namespace: Namespace) -> bool:
    """Return whether names have these values."""
    return all(nearly_equal(read(namespace, name), value) for name, value in values.items())


def has_result(truth: Truth, namespace: Namespace) -> bool:
    """Return whether the returned gradients are the expected ones."""
    try:
        found = truth.target.gradients(namespace[RESULT], namespace)
    except ValueError:
        return False
    return all(is_near(truth.result(name), each) for name, each in found.items())


def is_near(expected: Expected, found: Any) -> bool:
    """Return whether a value is the expected gradient, up to NEAR of its norm."""
    measured, dtype = expected.measured, expected.value.dtype
    if isinstance(found, float | int):
        found = np.asarray(found, dtype)
    if unusable(found, measured.probes.shape, dtype) is not None:
        return False
    known, near = measured.usable & ~measured.kinks, max(NEAR, 10 * measured.tolerance)
    errors = measured.probes.along(np.asarray(found)) - measured.values
    size = np.linalg.norm(measured.values[known]) + measured.eps * measured.size / near
    return bool(np.linalg.norm(errors[known]) <= near * size + np.linalg.norm(measured.errors))


def numbers(forward: Trace) -> list[Operand]:
    """Return the numbers that the lines of a forward compute, such as the root of a length."""
    found = dict[str, float]()
    for step in forward.steps:
        value = getattr(step.statement.node, "value", None)
        todo = [value] if isinstance(value, ast.expr) else []
        for node in todo:
            todo += operands_of(node)
            if isinstance(node, ast.BinOp | ast.Call | ast.Subscript):
                try:
                    number = eval(compiled(node), {**forward.before[step.index], **step.binds})
                except Exception:
                    continue
                if is_number(number) and not np.ndim(number) and np.isrealobj(number) and number:
                    found[ast.unparse(node)] = float(number)
    return [Operand(text, value) for text, value in found.items()]


def functions(forward: Trace) -> list[str]:
    """Return the names of the functions that the lines of a forward call with one argument."""
    nodes = (node for step in forward.steps for node in ast.walk(step.statement.node))
    calls = (node for node in nodes if isinstance(node, ast.Call) and len(node.args) == 1)
    return [*dict.fromkeys(call.func.id for call in calls if isinstance(call.func, ast.Name))]
