"""Run a backward one step at a time and record what each step sets."""

import ast
import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, cast

import numpy as np

from tinygpt_np.gradcheck.function_check import describe
from tinygpt_np.storage.parameters import Tensors
from tinygpt_np.study.source.parse import Function
from tinygpt_np.study.source.trace import Namespace, Step, compiled, unroll

# The term that a step adds to a gradient is stored under a name that no source can use.
TERM = "term of the sum"


@dataclass(frozen=True)
class ExecutedStep:
    """A step that was run.

    values: the values that the names it sets have afterwards. added: the term that it adds to a
    name, if it is a sum such as `x += …`. params: the gradients of parameters that it stores.
    error: the exception that it raised, or "". overwrites_input: whether it changes in place what
    the backward was given.
    """

    step: Step
    values: Namespace
    added: Namespace
    params: Tensors
    error: str = ""
    overwrites_input: bool = False


@dataclass(frozen=True)
class BackwardTrace:
    """A backward that was run, up to its return or to the step that raised.

    before: the namespace before each executed step, and at the end. not_reached: the steps after
    the one that raised. error: the exception raised by the return statement, or "".
    """

    function: Function
    executed: tuple[ExecutedStep, ...]
    before: tuple[Namespace, ...]
    not_reached: tuple[Step, ...]
    returned: Any
    error: str = ""

    @property
    def raised(self) -> bool:
        """Whether a step raised, so that the return statement was not reached."""
        return bool(self.executed) and bool(self.executed[-1].error)

    def rerun(self, start: int, changed: Namespace) -> Any:
        """Run the steps from `start` on with some names changed; return None if one raises."""
        namespace = {**copied(self.before[start], self.before[start]), **changed}
        dicts: Namespace = {n: v for n, v in namespace.items() if isinstance(v, dict)}
        namespace |= {name: copy.copy(each) for name, each in dicts.items()}
        try:
            with np.errstate(all="ignore"):
                for step in (*(each.step for each in self.executed[start:]), *self.not_reached):
                    step.run(namespace)
                return eval(compiled(self.function.result), namespace)
        except Exception:
            return None

    def sets(self, index: int) -> tuple[str, ...]:
        """Return the names that an executed step sets."""
        return self.executed[index].step.statement.sets

    def sources(self, index: int) -> list[int]:
        """Return the latest earlier steps that set what a step, or the return at the end, reads."""
        is_return = index == len(self.executed)
        statement = self.function.returned if is_return else self.executed[index].step.statement
        latest = {name: i for i in range(index) for name in self.sets(i)}
        return sorted({latest[name] for name in statement.mentions if name in latest})

    def ancestors(self, index: int) -> list[int]:
        """Return all earlier steps on which a step depends, directly or indirectly."""
        found, todo = set[int](), self.sources(index)
        while todo:
            source = todo.pop()
            if source not in found:
                found.add(source)
                todo += self.sources(source)
        return sorted(found)


def trace_backward(function: Function, module: Namespace, args: Namespace) -> BackwardTrace:
    """Run a backward up to its return, or to the step that raises."""
    namespace = {**module, **args}
    executed, before = list[ExecutedStep](), list[Namespace]()
    inputs = [*arrays_in([value for value in args.values() if not isinstance(value, dict)])]
    not_reached, returned, error = list[Step](), None, ""
    for step in unroll(function, namespace):
        before.append(copied(namespace, namespace))
        params_before, inputs_before = copied_params(namespace), [a.tobytes() for a in inputs]
        try:
            added = run_step(step, namespace)
        except Exception as raised:
            executed.append(ExecutedStep(step, {}, {}, {}, describe(raised)))
            last, index = step.statement.node.end_lineno or 0, len(executed)
            later = (each for each in function.statements if each.line > last)
            not_reached += (Step(index, each, {}, compiled(each.node)) for each in later)
            break
        values = copied(namespace, step.statement.sets)
        params = {
            n: d for n, d in copied_params(namespace).items()
            if n not in params_before or differ(params_before[n], d)
        }  # fmt: skip
        overwrites = inputs_before != [a.tobytes() for a in inputs]
        executed.append(
            ExecutedStep(step, values, copied(added, added), params, overwrites_input=overwrites)
        )
    else:
        try:
            returned = eval(compiled(function.result), namespace)
        except Exception as raised:
            error = describe(raised)
    before.append(namespace)
    observed = tuple(with_observed_changes(executed, before, function.returned.mentions))
    return BackwardTrace(function, observed, tuple(before), tuple(not_reached), returned, error)


def arrays_in(value: Any) -> Iterator[np.ndarray]:
    """Yield the arrays in nested tuples, lists and dicts."""
    if isinstance(value, np.ndarray):
        yield cast(np.ndarray, value)
    elif isinstance(value, dict):
        yield from arrays_in([*cast(dict[Any, Any], value).values()])
    elif isinstance(value, tuple | list):
        for part in cast(Sequence[Any], value):
            yield from arrays_in(part)


def with_observed_changes(
    executed: list[ExecutedStep], namespaces: Sequence[Namespace], read: frozenset[str]
) -> list[ExecutedStep]:
    """Return the steps with the names they were observed to change, if these are read later."""
    found: list[ExecutedStep] = []
    for index in reversed(range(len(executed))):
        each, before, after = executed[index], namespaces[index], namespaces[index + 1]
        statement = each.step.statement
        changes = [*statement.changes]
        if isinstance(statement.node, ast.Expr):  # A call may leave its arguments unchanged.
            changes = [
                name
                for name in changes
                if differ(before.get(name), after.get(name))
                or not isinstance(after.get(name), np.ndarray | ModuleType)
            ]
        others = sorted(read - {*statement.sets})
        changes += [name for name in others if differ(before.get(name), after.get(name))]
        if tuple(changes) != statement.changes:
            statement = replace(statement, changes=tuple(changes))
            values = copied(after, statement.sets)
            each = replace(each, step=replace(each.step, statement=statement), values=values)
        found.insert(0, each)
        if isinstance(statement.node, ast.Assign):
            read -= {*statement.sets} - {*statement.changes}
        read |= statement.mentions
    return found


def differ(before: Any, after: Any) -> bool:
    """Return whether two arrays differ in any bit."""
    arrays = isinstance(before, np.ndarray) and isinstance(after, np.ndarray)
    return arrays and cast(np.ndarray, before).tobytes() != cast(np.ndarray, after).tobytes()


def run_step(step: Step, namespace: Namespace) -> Namespace:
    """Run a step and return the term that it adds to a name, if it is a sum."""
    parts = as_sum(step.statement.node)
    if parts is None:
        step.run(namespace)
        return {}
    name, sign, term, rest = parts
    namespace.update(step.bindings)
    # The term is not computed twice.
    namespace[TERM] = eval(compiled(term), namespace)
    exec(compiled(rest), namespace)
    return {name: sign * namespace.pop(TERM)}


def as_sum(node: ast.stmt) -> tuple[str, int, ast.expr, ast.stmt] | None:
    """Return `x += e`, `x -= e` and `x = x + e` as (x, ±1, e, the same with TERM for e)."""
    rest, term = copy.deepcopy(node), ast.Name(TERM, ast.Load())
    match rest:
        case ast.AugAssign(ast.Name(id=name), ast.Add() | ast.Sub() as operator, e):
            rest.value = term
            return name, -1 if isinstance(operator, ast.Sub) else 1, e, rest
        case ast.Assign(
            [ast.Name(id=name)], ast.BinOp(ast.Name(id=first), ast.Add(), e) as value
        ) if name == first:
            value.right = term
            return name, 1, e, rest
        case _:
            return None


def param_gradients(namespace: Namespace) -> Tensors:
    """Return the gradients of parameters, which a backward stores in `grads`."""
    grads = namespace.get("grads")
    return cast(Tensors, grads) if isinstance(grads, dict) else {}


def copied_params(namespace: Namespace) -> Tensors:
    """Return copies of the gradients of parameters, because they may be overwritten later."""
    return {name: np.copy(gradient) for name, gradient in param_gradients(namespace).items()}


def copied(namespace: Namespace, names: Iterable[str]) -> Namespace:
    """Return some names, with arrays copied, because a later step may change them in place."""
    found = {name: namespace[name] for name in names if name in namespace}
    return {n: v.copy() if isinstance(v, np.ndarray) else v for n, v in found.items()}
