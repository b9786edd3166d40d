"""Runs a backward step by step, and keeps what each step gave."""

import ast
import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, cast

import numpy as np

from tinygpt_np.storage.parameters import Tensors
from tinygpt_np.study.source import Function, Statement
from tinygpt_np.study.trace import Names, Step, compiled, module_of, unrolled

# What a step adds to a gradient is kept under a name that no source can have.
ADDED = "what is added"


@dataclass(frozen=True)
class Moment:
    """A step that was run. values: what the names it sets hold then. added: what it adds to them,
    where it adds. params: the gradients of parameters that it keeps. spoils: whether it changes in
    place what the backward was given. error: what it raised.
    """

    step: Step
    values: Names
    added: Names
    params: Tensors
    error: str = ""
    spoils: bool = False


@dataclass(frozen=True)
class Undone:
    """A backward that was run. names: what was known before each moment, and at the end. steps: all
    that there are to run; result: the expression that it returns. last: the names that the return
    reads. returned: what it returned; error: what that raised.
    """

    moments: tuple[Moment, ...]
    names: tuple[Names, ...]
    last: frozenset[str]
    steps: tuple[Step, ...]
    result: ast.expr
    returned: Any
    error: str = ""

    @property
    def raised(self) -> bool:
        """Whether it did not get as far as its return."""
        return bool(self.moments) and bool(self.moments[-1].error)

    def again(self, start: int, changed: Names) -> Any:
        """What would be returned, had some names held something else before a moment; or None."""
        names = {**kept(self.names[start], self.names[start]), **changed}
        names |= {n: copy.copy(cast(Names, v)) for n, v in names.items() if isinstance(v, dict)}
        return rerun(self.steps[start:], names, self.result)

    def sets(self, index: int) -> tuple[str, ...]:
        return self.moments[index].step.statement.sets

    def sources(self, index: int) -> list[int]:
        """The earlier moments that set what a moment reads, the latest for each name.

        The return counts as the moment after the last.
        """
        found: set[int] = set()
        is_return = index == len(self.moments)
        for name in self.last if is_return else self.moments[index].step.statement.mentions:
            earlier = (i for i in reversed(range(index)) if name in self.sets(i))
            found |= {i for i in [next(earlier, -1)] if i >= 0}
        return sorted(found)

    def ancestors(self, index: int) -> list[int]:
        """All earlier moments on which a moment depends."""
        found, todo = set[int](), self.sources(index)
        while todo:
            source = todo.pop()
            if source not in found:
                found.add(source)
                todo += self.sources(source)
        return sorted(found)


def left(function: Function, moments: Sequence[Moment]) -> Iterator[Step]:
    """The steps that did not run, where one raised."""
    if moments and moments[-1].error:
        last = moments[-1].step.statement.node
        for each in function.statements:
            if each.line > (last.end_lineno or last.lineno):
                yield Step(len(moments), each, {}, compiled(module_of(each.node), "exec"))


def rerun(steps: Sequence[Step], names: Names, returned: ast.expr) -> Any:
    """What is returned once some steps have run; None where one raises."""
    try:
        with np.errstate(all="ignore"):
            for step in steps:
                step.run(names)
            return eval(compiled(ast.Expression(returned), "eval"), names)
    except Exception:
        return None


def undo(function: Function, module: Names, args: Names) -> Undone:
    """Runs a backward up to its end, or to the step that raises."""
    names = {**module, **args}
    moments, before = list[Moment](), list[Names]()
    given = [*arrays_in([value for value in args.values() if not isinstance(value, dict)])]

    def undone(returned: Any = None, error: str = "") -> Undone:
        after, value = (*before, names), function.returned.value
        assert value is not None
        last = function.statement(function.returned).mentions
        ran = tuple(seen(moments, after, last))
        steps = (*(moment.step for moment in moments), *left(function, moments))
        return Undone(ran, after, last, steps, value, returned, error)

    for step in unrolled(function, names):
        before.append(kept(names, names))
        kept_before, given_before = kept_now(names), [each.tobytes() for each in given]
        try:
            added = run(step, names)
        except Exception as error:
            moments.append(Moment(step, {}, {}, {}, describe(error)))
            return undone()
        values = kept(names, step.statement.sets)
        params = {
            n: d for n, d in kept_now(names).items()
            if n not in kept_before or differ(kept_before[n], d)
        }  # fmt: skip
        spoils = given_before != [each.tobytes() for each in given]
        moments.append(Moment(step, values, kept(added, added), params, spoils=spoils))
    value = function.returned.value
    assert value is not None
    try:
        returned = eval(compiled(ast.Expression(value), "eval"), names)
    except Exception as error:
        return undone(error=describe(error))
    return undone(returned)


def arrays_in(value: Any) -> Iterator[np.ndarray]:
    """The arrays in tuples, lists and the like."""
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


def seen(moments: list[Moment], names: Sequence[Names], read: frozenset[str]) -> list[Moment]:
    """The moments, with what they were seen to change: in a call, or by another name of it.

    names: before each moment, and at the end. read: by what comes after; it is of no interest what
    becomes of a name that is not read any more.
    """
    found: list[Moment] = []
    for index in reversed(range(len(moments))):
        moment, before, after = moments[index], names[index], names[index + 1]
        statement = moment.step.statement
        changes = [*statement.changes]
        if isinstance(statement.node, ast.Expr):  # What is given to a call may be looked at only.
            looked_at = {n for n in changes if is_same(before.get(n), after.get(n))}
            changes = [name for name in changes if name not in looked_at]
        others = sorted(read - {*statement.sets})
        changes += [name for name in others if differ(before.get(name), after.get(name))]
        if tuple(changes) != statement.changes:
            statement = replace(statement, seen=tuple(changes))
            values = kept(after, statement.sets)
            moment = replace(moment, step=replace(moment.step, statement=statement), values=values)
        found.insert(0, moment)
        if isinstance(statement.node, ast.Assign):
            read -= {*statement.sets} - {*statement.changes}
        read |= statement.mentions
    return found


def is_same(before: Any, after: Any) -> bool:
    """Whether an array is what it was; a module, such as np, is."""
    is_array = isinstance(after, np.ndarray)
    return isinstance(after, ModuleType) or (is_array and not differ(before, after))


def differ(before: Any, after: Any) -> bool:
    """Whether two arrays differ, in a single bit."""
    arrays = isinstance(before, np.ndarray) and isinstance(after, np.ndarray)
    return arrays and cast(np.ndarray, before).tobytes() != cast(np.ndarray, after).tobytes()


def run(step: Step, names: Names) -> Names:
    """Runs a step, and returns what it adds to the name it sets, if it adds to one."""
    sum_ = as_sum(step.statement)
    if sum_ is None:
        step.run(names)
        return {}
    name, sign, term = sum_
    names.update(step.bindings)
    names[ADDED] = eval(compiled(ast.Expression(term), "eval"), names)
    # The same statement, with the term in its place, so that nothing is computed twice.
    replace(step, code=compiled(ast.Module([with_term(step.statement.node)], []), "exec")).run(
        names
    )
    return {name: sign * names.pop(ADDED)}


def as_sum(statement: Statement) -> tuple[str, int, ast.expr] | None:
    """x += e, x -= e, x = x + e as (x, ±1, e)."""
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
    """The sum with the name of its term in place of the term."""
    changed = copy.deepcopy(node)
    term = ast.Name(ADDED, ast.Load())
    if isinstance(changed, ast.AugAssign):
        changed.value = term
    else:
        cast(ast.BinOp, cast(ast.Assign, changed).value).right = term
    return changed


def gradients_kept(names: Names) -> Tensors:
    """The gradients of parameters found so far: what a backward keeps in `grads`."""
    grads = names.get("grads")
    return cast(Tensors, grads) if isinstance(grads, dict) else {}


def kept_now(names: Names) -> Tensors:
    """The same, copied: they may be overwritten."""
    return {name: np.copy(gradient) for name, gradient in gradients_kept(names).items()}


def kept(names: Names, wanted: Iterable[str]) -> Names:
    """Some of the names, arrays copied: a later step may change them in place."""
    found = {name: names[name] for name in wanted if name in names}
    return {n: v.copy() if isinstance(v, np.ndarray) else v for n, v in found.items()}


def describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
