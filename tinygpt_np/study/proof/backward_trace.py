"""Run a backward one step at a time and record what each step sets."""

import ast
import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, cast

import numpy as np

from tinygpt_np.gradcheck.calls import SELF, describe
from tinygpt_np.gradcheck.tree import Gradients, leaves
from tinygpt_np.storage.parameters import Tensors
from tinygpt_np.study.source.parse import Function, Statement
from tinygpt_np.study.source.paths import Namespace, overlap, read, store
from tinygpt_np.study.source.steps import Step, Stepper, compiled
from tinygpt_np.study.source.targets import Target
from tinygpt_np.study.source.trace import copied as deep_copied
from tinygpt_np.study.source.trace import differ

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

    module, args: of the run. before: the namespace before each executed step, and at the end. end:
    the return statement; if a step raised, the last one. not_reached: the steps after the one that
    raised. error: the exception raised by the return statement, or "".
    """

    function: Function
    module: Namespace
    args: Namespace
    executed: tuple[ExecutedStep, ...]
    before: tuple[Namespace, ...]
    end: Step
    not_reached: tuple[Step, ...]
    returned: Any
    error: str = ""

    def gradients(self, target: Target) -> Gradients:
        """Return the gradients of arguments by name. Raises ValueError if that is impossible."""
        return target.gradients(self.returned, self.before[-1])

    @property
    def raised(self) -> bool:
        """Whether a step raised, so that the return statement was not reached."""
        return bool(self.executed) and bool(self.executed[-1].error)

    def namespaces_before(self, indices: Sequence[int]) -> dict[int, Namespace]:
        """Return the namespaces before some executed steps, to run these steps again."""
        args = deep_copied(self.args)
        namespace: Namespace = {**args, **self.module, **args}
        found = dict[int, Namespace]()
        for index, each in enumerate((*self.executed, None)):
            if index in indices:
                own = {n: v for n, v in namespace.items() if v is not self.module.get(n, self)}
                found[index] = {**namespace, **deep_copied(own)}
            if each is not None and not each.error:
                each.step.run(namespace)
        return {index: found[index] for index in indices}

    def sets(self, index: int) -> tuple[str, ...]:
        """Return the names that an executed step sets."""
        return self.executed[index].step.statement.sets

    def sources(self, index: int) -> list[int]:
        """Return the latest earlier steps that set what a step, or the return at the end, reads."""
        is_return = index == len(self.executed)
        statement = self.end.statement if is_return else self.executed[index].step.statement
        latest = {name: i for i in range(index) for name in self.sets(i)}
        # A container depends on all of its parts, and a part on the container.
        read = statement.mentions
        return sorted({i for each, i in latest.items() if any(overlap(n, each) for n in read)})

    def ancestors(self, index: int) -> list[int]:
        """Return all earlier steps on which a step depends, directly or indirectly."""
        found, todo = set[int](), self.sources(index)
        while todo:
            source = todo.pop()
            if source not in found:
                found.add(source)
                todo += self.sources(source)
        return sorted(found)


def trace_backward(
    function: Function, module: Namespace, args: Namespace,
    corrections: Mapping[int, Namespace] | None = None,
) -> BackwardTrace:  # fmt: skip
    """Run a backward up to its return, or to the step that raises.

    corrections: names to set after some steps, so that later steps read the right values.
    """
    given = deep_copied(args)
    stepper = Stepper(function, module, args)
    namespace = stepper.namespace
    executed, before = list[ExecutedStep](), list[Namespace]()
    inputs = [*arrays_in([value for name, value in args.items() if name != "grads"])]
    not_reached, returned, error = list[Step](), None, ""
    for step in stepper:
        before.append(copied(namespace, namespace))
        params_before, inputs_before = copied_params(namespace), [bits(a) for a in inputs]
        try:
            added = run_step(step, namespace)
        except Exception as raised:
            executed.append(ExecutedStep(step, {}, {}, {}, describe(raised)))
            later = (node for node in stepper.following if not isinstance(node, ast.Return))
            not_reached += (unreached(function, node, len(executed)) for node in later)
            end = unreached(function, function.returned.node, len(executed))
            break
        values = copied(namespace, step.statement.sets)
        params = {
            n: d for n, d in copied_params(namespace).items()
            if n not in params_before or differ(params_before[n], d)
        }  # fmt: skip
        for name, value in (corrections or {}).get(step.index, {}).items():
            store(namespace, name, copy.copy(value))
        overwrites = inputs_before != [bits(a) for a in inputs]
        executed.append(
            ExecutedStep(step, values, copied(added, added), params, overwrites_input=overwrites)
        )
    else:
        assert stepper.end is not None
        end = stepper.end
        try:
            returned = end.run(namespace)
        except Exception as raised:
            error = describe(raised)
    before.append(namespace)
    if SELF in args:  # Its attributes are results too.
        mentioned = end.statement.mentioned | {SELF}
        end = replace(end, statement=replace(end.statement, mentioned=mentioned))
    observed = tuple(with_observed_changes(executed, before, end.statement.mentions))
    return BackwardTrace(
        function, module, given, observed, tuple(before), end, tuple(not_reached), returned, error
    )


def unreached(function: Function, node: ast.stmt, index: int) -> Step:
    """Return a step that was not reached."""
    return Step(index, function.statement(node), {}, compiled(node), function)


def bits(array: np.ndarray) -> bytes:
    """Return the bits of an array; b"" for one of objects, whose parts count themselves."""
    return b"" if array.dtype == object else array.tobytes()


def arrays_in(value: Any) -> Iterator[np.ndarray]:
    """Yield the arrays in nested tuples, lists, dicts, objects and arrays of objects."""
    if isinstance(value, np.ndarray):
        array = cast(np.ndarray, value)
        yield array
        if array.dtype == object:
            yield from arrays_in([*array.ravel()])
    else:
        for leaf in leaves({"": value}).values():
            if isinstance(leaf, np.ndarray):
                yield from arrays_in(leaf)


def with_observed_changes(
    executed: list[ExecutedStep], namespaces: Sequence[Namespace], needed: frozenset[str]
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
                if differ(read(before, name), read(after, name))
                or not isinstance(read(after, name), np.ndarray | ModuleType)
            ]
        others = sorted(needed - {*statement.sets})
        changes += [name for name in others if differ(read(before, name), read(after, name))]
        if tuple(changes) != statement.changes:
            statement = replace(statement, changes=tuple(changes))
            values = copied(after, statement.sets)
            each = replace(each, step=replace(each.step, statement=statement), values=values)
        found.insert(0, each)
        if isinstance(statement.node, ast.Assign):
            needed -= {*statement.sets} - {*statement.changes}
        needed |= statement.mentions
    return found


def run_step(step: Step, namespace: Namespace) -> Namespace:
    """Run a step and return the term that it adds to a name, if it is a sum."""
    parts = as_sum(step.statement)
    if parts is None:
        step.run(namespace)
        return {}
    name, sign, term, rest = parts
    namespace.update(step.binds)
    # The term is not computed twice.
    namespace[TERM] = eval(compiled(term), namespace)
    exec(compiled(rest), namespace)
    return {name: sign * namespace.pop(TERM)}


def as_sum(statement: Statement) -> tuple[str, int, ast.expr, ast.stmt] | None:
    """Return `x += e`, `x = x + e` and the same with `-` as (x, ±1, e, it with TERM for e)."""
    if len(statement.assigned) != 1:  # A part of an array changes, or there are several names.
        return None
    (name,), term = statement.assigned, ast.Name(TERM, ast.Load())
    match rest := copy.copy(statement.node):
        case ast.AugAssign(_, ast.Add() | ast.Sub() as operator, e):
            rest.value = term
            return name, -1 if isinstance(operator, ast.Sub) else 1, e, rest
        case ast.Assign([target], ast.BinOp(first, ast.Add() | ast.Sub() as operator, e)) if (
            ast.unparse(target) == ast.unparse(first)
        ):
            rest.value = ast.BinOp(first, operator, term)
            return name, -1 if isinstance(operator, ast.Sub) else 1, e, rest
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
    found = {name: read(namespace, name) for name in names}
    return {n: v.copy() if isinstance(v, np.ndarray) else v for n, v in found.items()}
