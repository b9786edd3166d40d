"""The cause of a wrong line: the mistake that makes it differ from what it should set.

What a line should set is known if it is a gradient, a value of forward, or the result of the
backward. If it is not, the next line that uses it is judged instead.
"""

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tinygpt_np.gradcheck.verdict import unusable
from tinygpt_np.study.proof.backward_trace import BackwardTrace, param_gradients
from tinygpt_np.study.proof.detached import detached_parts
from tinygpt_np.study.proof.pairing import Pair
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
from tinygpt_np.study.source.targets import gradients_by_name
from tinygpt_np.study.source.trace import Trace

# The largest relative error of what a corrected line sets.
NEAR = 1e-9
IsRight = Callable[[Namespace], bool]
# Of these mistakes, the size of the factor says more.
OF_A_FACTOR = ("a factor is missing", "a factor too many", "the wrong number")


@dataclass(frozen=True)
class Goal:
    """What a step should set. index: of the step, or of the return after the last one."""

    index: int
    is_right: IsRight


@np.errstate(all="ignore")
def cause(
    truth: Truth, trace: BackwardTrace, lines: Sequence[BackwardLine], index: int,
    pairs: Mapping[tuple[int, str], Pair],
) -> str:  # fmt: skip
    """Return the cause of a wrong line, or "".

    lines: the verdicts on the executed steps and, if it was reached, on the return. pairs: the
    values whose gradients the steps set.
    """
    line = lines[index]
    if absent := next((g.name for g in line.gradients if g.found is None), ""):
        return f"a condition is missing: `{absent}` is None, and it should be a gradient"
    if line.message.endswith("must be None"):
        return f"a condition is missing: {line.message}"
    if "shares its memory with" in line.message:
        return f"a copy is missing: {line.message}"
    goal = next(goals(truth, trace, lines, index, pairs), None)
    if goal is None:
        return ""
    steps = [*(each.step for each in trace.executed), trace.end][: goal.index + 1]
    ancestors = [i for i in trace.ancestors(goal.index) if {*trace.sets(i)} & {*line.fused}]
    suspects = [index, *(reversed(ancestors) if goal.index == index else ())]
    before = trace.namespaces_before(suspects)
    found = mistakes(WrongLine(steps, before, trace.module, goal.is_right, numbers(truth.trace)))
    if not found:
        return missing_part(truth, line)
    if len(found) > 2:
        return ""
    size = ""
    if {*found} <= {*OF_A_FACTOR} and line.cause.startswith("too "):
        size = f"; {line.gradients[0].name} is {line.cause}"
    return ", or ".join(f"{mistake}: {how}" for mistake, how in found.items()) + size


def missing_part(truth: Truth, line: BackwardLine) -> str:
    """Return the cause if a gradient is right for a forward some of whose values are constant."""
    for g in line.gradients:
        if g.pair is None or g.status != "wrong" or np.shape(g.found) != g.row.shape:
            continue
        if parts := detached_parts(truth, g.pair.value, np.asarray(g.found)):
            texts = " and ".join(f"`{part.text}`" for part in parts)
            return f"a path is missing: {g.name} lacks the part through {texts}"
    return ""


def goals(
    truth: Truth, trace: BackwardTrace, lines: Sequence[BackwardLine], index: int,
    pairs: Mapping[tuple[int, str], Pair],
) -> Iterator[Goal]:  # fmt: skip
    """Yield what the lines from a wrong one on should set, as far as it is known."""
    executed, forward = trace.executed, {value.name: value for value in truth.trace.values()}
    for i, each in list(enumerate(executed))[index:]:
        statement, before = each.step.statement, trace.before[i]
        for name in statement.sets if each.error else ():
            if (pair := pairs.get((i, name))) is not None:
                value, use = pair.value, pair.use
                expected = truth.total(value) if use is None else truth.use(value, use)
                is_sum = isinstance(statement.node, ast.AugAssign)
                yield Goal(i, gradient_of(name, expected, before, is_sum))
        for g in lines[i].gradients:
            if g.status in ("wrong", "inherited"):
                is_sum = g.name in each.added and g.found is each.added[g.name]
                yield Goal(i, gradient_of(g.name, g.expected, before, is_sum))
        same = {name: truth.trace.data(forward[name]) for name in statement.sets if name in forward}
        if i == index and same:
            yield Goal(i, partial(has_values, same))
    if len(lines) > len(executed):
        yield Goal(len(executed), partial(is_right_result, truth))


def has_values(values: Namespace, namespace: Namespace) -> bool:
    """Return whether names have these values."""
    return all(nearly_equal(read(namespace, name), value) for name, value in values.items())


def gradient_of(name: str, expected: Expected, before: Namespace, is_sum: bool) -> IsRight:
    """Return whether a step sets a gradient to the expected one, or adds the expected term."""

    def is_right(namespace: Namespace) -> bool:
        found = param_gradients(namespace).get(name, read(namespace, name))
        return is_near(expected, found - read(before, name) if is_sum else found)

    return is_right


def is_right_result(truth: Truth, namespace: Namespace) -> bool:
    """Return whether the returned gradients are the expected ones."""
    found = gradients_by_name(truth.target, namespace[RESULT])
    return all(is_near(truth.result(name), each) for name, each in found.items())


def is_near(expected: Expected, found: Any) -> bool:
    """Return whether a value is the expected gradient, up to NEAR of its norm."""
    measured, dtype = expected.measured, expected.value.dtype
    if isinstance(found, float | int):
        found = np.asarray(found, dtype)
    if unusable(found, measured.probes.shape, dtype) is not None:
        return False
    errors = measured.probes.along(np.asarray(found)) - measured.values
    usable, size = measured.usable, np.linalg.norm(measured.values[measured.usable])
    rounding = np.linalg.norm(np.broadcast_to(measured.floor, errors.shape))
    near = max(NEAR, 10 * measured.tolerance)
    return bool(np.linalg.norm(errors[usable]) <= near * size + rounding)


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
