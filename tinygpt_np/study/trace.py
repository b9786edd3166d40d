"""Runs a function step by step, and runs what is left of it again with one value changed.

A step is a statement, or one round of it in a loop that is made of plain statements.
"""

import ast
import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import CodeType
from typing import Any, cast

import numpy as np

from tinygpt_np.study.source import Function, Statement, StudyError

Names = dict[str, Any]
CHANGEABLE = (np.ndarray, list, dict, set, np.random.Generator)
# A longer loop is one step.
ROUNDS = 16
# What it goes through is kept under a name that no source can have.
ITEMS = "what the loop goes through"


@dataclass(frozen=True)
class Step:
    """bindings: the loop variables of this round. code: of the statement."""

    index: int
    statement: Statement
    bindings: Mapping[str, Any]
    code: CodeType

    @property
    def round(self) -> str:
        """Which round of a loop it is, in words."""
        bindings = {name: value for name, value in self.bindings.items() if name != ITEMS}
        return ", ".join(f"{name} = {value}" for name, value in bindings.items())

    def run(self, names: Names) -> None:
        names.update(self.bindings)
        exec(self.code, names)


@dataclass(frozen=True)
class Value:
    """What a name holds from one step on; at -1, the argument. A name set twice is two values."""

    name: str
    step: int


class Trace:
    """A function run once. steps; before: what is known before each, and at the end."""

    def __init__(self, function: Function, module: Names, args: Names) -> None:
        self.function, self.args = function, args
        self.steps: list[Step] = []
        self.before: list[Names] = []
        names, line = {**module, **self.fresh(args)}, function.node.lineno
        value = function.returned.value
        assert value is not None
        self.returned_code = compiled(ast.Expression(value), "eval")
        try:
            with np.errstate(all="ignore"):  # What is not finite is told by whoever reads it.
                for step in unrolled(function, names):
                    self.steps.append(step)
                    self.before.append(self.fresh(names))
                    line = step.statement.line
                    step.run(names)
                line = function.returned.lineno
                self.returned: Any = eval(self.returned_code, names)
        except Exception as error:
            raised = f"{function.name} raises {type(error).__name__}: {error}"
            raise StudyError(f"{function.where}, line {line}: {raised}") from None
        self.before.append(names)

    @cached_property
    def changes_in_place(self) -> bool:
        """Whether a run leaves anything it is given otherwise than it was."""
        draws = any(isinstance(arg, np.random.Generator) for arg in self.args.values())
        return draws or any(statement.changes for statement in self.function.statements)

    def fresh(self, names: Names) -> Names:
        """The names for a run of their own: what it changes in place is not changed here."""
        if not self.changes_in_place:
            return dict(names)
        memo: dict[int, Any] = {}
        return {
            name: copy.deepcopy(cast(Any, value), memo)
            if isinstance(value, CHANGEABLE) and name != "__builtins__"
            else value
            for name, value in names.items()
        }

    def output(self, returned: Any) -> Any:
        """Of (out, saved) the first, anything else as it is."""
        if isinstance(returned, tuple):
            parts = cast(tuple[Any, ...], returned)
            return parts[0] if len(parts) == 2 else parts
        return returned

    def rest(self, value: Value) -> Callable[[Any], Any]:
        """What the output becomes where a value is another."""

        def run(changed: Any) -> Any:
            names = self.fresh(self.before[value.step + 1])
            names[value.name] = changed
            return self.finish(names, value.step + 1)

        return run

    def rest_where_read(self, value: Value, step: int) -> Callable[[Any], Any]:
        """The same, where it is another for one of the steps that read it only."""

        def run(changed: Any) -> Any:
            names = self.fresh(self.before[step])
            true = names[value.name]
            names[value.name] = changed
            self.steps[step].run(names)
            if value.name not in self.steps[step].statement.sets:
                names[value.name] = true
            return self.finish(names, step + 1)

        return run

    def one_step(self, name: str, step: int, outputs: tuple[str, ...]) -> Callable[[Any], Any]:
        """What one step alone makes of a name that is another: its outputs, one after another."""

        def run(changed: Any) -> Any:
            names = {**self.fresh(self.before[step]), name: changed}
            self.steps[step].run(names)
            return np.concatenate([np.reshape(names[output], -1) for output in outputs])

        return run

    def finish(self, names: Names, start: int) -> Any:
        for step in self.steps[start:]:
            step.run(names)
        return self.output(eval(self.returned_code, names))

    def held(self, value: Value) -> Any:
        """What a value is."""
        return self.before[value.step + 1].get(value.name)

    def values(self) -> Iterator[Value]:
        """The arguments, then every value in the order in which it is set."""
        yield from (Value(name, -1) for name in self.args)
        for step in self.steps:
            yield from (Value(name, step.index) for name in step.statement.sets)

    def reaching(self, name: str, step: int) -> Value:
        """The value that a name holds when a step reads it."""
        earlier = (s.index for s in reversed(self.steps[:step]) if name in s.statement.sets)
        return Value(name, next(earlier, -1))

    def uses(self, value: Value) -> list[int]:
        """The steps into whose results a value flows."""
        return [
            step.index
            for step in self.steps[value.step + 1 :]
            if value.name in step.statement.reads and self.reaching(value.name, step.index) == value
        ]


def unrolled(function: Function, names: Names) -> Iterator[Step]:
    """The steps of a function, one after another; `names` is what is known when it gets there."""
    index = 0
    for statement in function.statements:
        rounds, inside = [Names()], [statement]
        if isinstance(statement.node, ast.For) and can_be_unrolled(statement.node):
            loop = statement.node
            # Once only: an iterator has nothing left the second time.
            items = list(eval(compiled(ast.Expression(loop.iter), "eval"), names))
            if 0 < len(items) <= ROUNDS:
                rounds = [{cast(ast.Name, loop.target).id: item} for item in items]
                inside = [function.statement(node) for node in loop.body]
            else:
                through = ast.For(loop.target, ast.Name(ITEMS, ast.Load()), loop.body, [])
                node = ast.copy_location(through, loop)
                yield Step(index, statement, {ITEMS: items}, compiled(module_of(node), "exec"))
                index += 1
                continue
        codes = [compiled(module_of(each.node), "exec") for each in inside]
        for bindings in rounds:
            for each, code in zip(inside, codes, strict=True):
                yield Step(index, each, bindings, code)
                index += 1


def can_be_unrolled(loop: ast.For) -> bool:
    """Whether a loop is made of plain statements, one after another."""
    plain = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr)
    is_plain = all(isinstance(node, plain) for node in loop.body)
    return is_plain and not loop.orelse and isinstance(loop.target, ast.Name)


def module_of(node: ast.stmt) -> ast.Module:
    return ast.Module([node], [])


def compiled(tree: ast.Module | ast.Expression, mode: str) -> CodeType:
    return compile(ast.fix_missing_locations(tree), "<study>", mode)
