"""Run a backward one step at a time and record what each step sets."""

import ast
import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, cast

import numpy as np

from tinygpt_np.storage.parameters import Tensors
from tinygpt_np.study.source.parse import Function, Statement
from tinygpt_np.study.source.trace import Namespace, Step, compile_node, compile_statement, unroll

# The term that a step adds to a gradient is stored under a name that no source can use.
TERM = "term of the sum"


@dataclass(frozen=True)
class ExecutedStep:
    """A step that was run.

    Attributes
    ----------
    values : Namespace
        The values that the names it sets have afterwards.
    added : Namespace
        The term that it adds to a name, if it is a sum such as `x += …`.
    params : Tensors
        The gradients of parameters that it stores.
    error : str
        The exception that it raised, or "".
    overwrites_input : bool
        Whether it changes in place what the backward was given.
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

    Attributes
    ----------
    executed : tuple of ExecutedStep
    before : tuple of Namespace
        The namespace before each executed step, and at the end.
    returned_names : frozenset of str
        The names that the return statement reads.
    steps : tuple of Step
        All steps, including those that were not reached.
    result : ast.expr
        The expression of the return statement.
    returned : Any
        What the backward returned.
    error : str
        The exception raised by the return statement, or "".
    """

    executed: tuple[ExecutedStep, ...]
    before: tuple[Namespace, ...]
    returned_names: frozenset[str]
    steps: tuple[Step, ...]
    result: ast.expr
    returned: Any
    error: str = ""

    @property
    def raised(self) -> bool:
        """Whether a step raised, so that the return statement was not reached."""
        return bool(self.executed) and bool(self.executed[-1].error)

    def rerun(self, start: int, changed: Namespace) -> Any:
        """Run the steps from `start` on with some names changed; return None if one raises."""
        namespace = {**copied(self.before[start], self.before[start]), **changed}
        namespace |= {
            n: copy.copy(cast(Namespace, v)) for n, v in namespace.items() if isinstance(v, dict)
        }
        try:
            with np.errstate(all="ignore"):
                for step in self.steps[start:]:
                    step.run(namespace)
                return eval(compile_node(ast.Expression(self.result), "eval"), namespace)
        except Exception:
            return None

    def sets(self, index: int) -> tuple[str, ...]:
        """Return the names that an executed step sets."""
        return self.executed[index].step.statement.sets

    def sources(self, index: int) -> list[int]:
        """Return the earlier steps that set what a step reads, the latest one for each name.

        The return statement counts as the step after the last.
        """
        found: set[int] = set()
        is_return = index == len(self.executed)
        statement = None if is_return else self.executed[index].step.statement
        for name in self.returned_names if statement is None else statement.mentions:
            earlier = (i for i in reversed(range(index)) if name in self.sets(i))
            found |= {i for i in [next(earlier, -1)] if i >= 0}
        return sorted(found)

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

    def finished(returned: Any = None, error: str = "") -> BackwardTrace:
        after, value = (*before, namespace), function.returned.value
        assert value is not None
        returned_names = function.statement(function.returned).mentions
        observed = tuple(with_observed_changes(executed, after, returned_names))
        steps = (*(each.step for each in observed), *steps_not_reached(function, executed))
        return BackwardTrace(observed, after, returned_names, steps, value, returned, error)

    for step in unroll(function, namespace):
        before.append(copied(namespace, namespace))
        params_before, inputs_before = copied_params(namespace), [a.tobytes() for a in inputs]
        try:
            added = run_step(step, namespace)
        except Exception as error:
            executed.append(ExecutedStep(step, {}, {}, {}, describe(error)))
            return finished()
        values = copied(namespace, step.statement.sets)
        params = {
            n: d for n, d in copied_params(namespace).items()
            if n not in params_before or differ(params_before[n], d)
        }  # fmt: skip
        overwrites = inputs_before != [a.tobytes() for a in inputs]
        executed.append(
            ExecutedStep(step, values, copied(added, added), params, overwrites_input=overwrites)
        )
    value = function.returned.value
    assert value is not None
    try:
        returned = eval(compile_node(ast.Expression(value), "eval"), namespace)
    except Exception as error:
        return finished(error=describe(error))
    return finished(returned)


def steps_not_reached(function: Function, executed: Sequence[ExecutedStep]) -> Iterator[Step]:
    """Yield the steps after the one that raised, if one did."""
    if executed and executed[-1].error:
        last = executed[-1].step.statement.node
        for each in function.statements:
            if each.line > (last.end_lineno or last.lineno):
                yield Step(len(executed), each, {}, compile_statement(each.node))


def arrays_in(value: Any) -> Iterator[np.ndarray]:
    """Yield the arrays in nested tuples, lists and dicts."""
    match value:
        case np.ndarray():
            yield cast(np.ndarray, value)
        case tuple() | list():
            for part in cast(Sequence[Any], value):
                yield from arrays_in(part)
        case dict():
            yield from arrays_in([*cast(dict[Any, Any], value).values()])
        case _:
            pass


def with_observed_changes(
    executed: list[ExecutedStep], namespaces: Sequence[Namespace], read: frozenset[str]
) -> list[ExecutedStep]:
    """Return the steps with the names they were observed to change, in a call or through an alias.

    `namespaces` holds the namespace before each step and at the end; `read` the names read by the
    return statement. Changes to a name that is not read afterwards are ignored.
    """
    found: list[ExecutedStep] = []
    for index in reversed(range(len(executed))):
        each, before, after = executed[index], namespaces[index], namespaces[index + 1]
        statement = each.step.statement
        changes = [*statement.changes]
        if isinstance(statement.node, ast.Expr):  # A call may leave its arguments unchanged.
            unchanged = {n for n in changes if is_unchanged(before.get(n), after.get(n))}
            changes = [name for name in changes if name not in unchanged]
        others = sorted(read - {*statement.sets})
        changes += [name for name in others if differ(before.get(name), after.get(name))]
        if tuple(changes) != statement.changes:
            statement = replace(statement, observed_changes=tuple(changes))
            values = copied(after, statement.sets)
            each = replace(each, step=replace(each.step, statement=statement), values=values)
        found.insert(0, each)
        if isinstance(statement.node, ast.Assign):
            read -= {*statement.sets} - {*statement.changes}
        read |= statement.mentions
    return found


def is_unchanged(before: Any, after: Any) -> bool:
    """Return whether an array is unchanged; a module, such as np, always is."""
    is_array = isinstance(after, np.ndarray)
    return isinstance(after, ModuleType) or (is_array and not differ(before, after))


def differ(before: Any, after: Any) -> bool:
    """Return whether two arrays differ in any bit."""
    arrays = isinstance(before, np.ndarray) and isinstance(after, np.ndarray)
    return arrays and cast(np.ndarray, before).tobytes() != cast(np.ndarray, after).tobytes()


def run_step(step: Step, namespace: Namespace) -> Namespace:
    """Run a step and return the term that it adds to a name, if it is a sum."""
    parts = as_sum(step.statement)
    if parts is None:
        step.run(namespace)
        return {}
    name, sign, term = parts
    namespace.update(step.bindings)
    namespace[TERM] = eval(compile_node(ast.Expression(term), "eval"), namespace)
    # Run the statement with the computed term in its place, so that it is not computed twice.
    exec(compile_statement(with_term(step.statement.node)), namespace)
    return {name: sign * namespace.pop(TERM)}


def as_sum(statement: Statement) -> tuple[str, int, ast.expr] | None:
    """Return `x += e`, `x -= e` and `x = x + e` as (x, ±1, e), and None for other statements."""
    match statement.node:
        case ast.AugAssign(ast.Name(id=name), ast.Add() | ast.Sub() as operator, term):
            return name, -1 if isinstance(operator, ast.Sub) else 1, term
        case ast.Assign([ast.Name(id=name)], ast.BinOp(ast.Name(id=first), ast.Add(), term)) if (
            name == first
        ):
            return name, 1, term
        case _:
            return None


def with_term(node: ast.stmt) -> ast.stmt:
    """Return a sum with its term replaced by the name of the computed term."""
    changed = copy.deepcopy(node)
    term = ast.Name(TERM, ast.Load())
    if isinstance(changed, ast.AugAssign):
        changed.value = term
    else:
        cast(ast.BinOp, cast(ast.Assign, changed).value).right = term
    return changed


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


def describe(error: Exception) -> str:
    """Return an exception as "TypeError: message"."""
    return f"{type(error).__name__}: {error}"
