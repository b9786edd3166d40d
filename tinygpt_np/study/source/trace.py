"""Run a function one step at a time, and rerun the rest of it with one value replaced.

A step is a statement, or one iteration of a statement in a loop that contains only plain
statements.
"""

import ast
import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import CodeType
from typing import Any, cast

import numpy as np

from tinygpt_np.study.source.parse import Function, Statement, StudyError

Namespace = dict[str, Any]
MUTABLE = (np.ndarray, list, dict, set, np.random.Generator)
# A loop with more iterations is a single step.
MAX_ITERATIONS = 16
# The items of a loop are stored under a name that no source can use.
ITEMS = "items of the loop"


@dataclass(frozen=True)
class Step:
    """A statement to be run, with the loop variables of its iteration and its compiled code."""

    index: int
    statement: Statement
    bindings: Mapping[str, Any]
    code: CodeType

    @property
    def iteration(self) -> str:
        """The iteration of the loop, such as "layer = 0", or ""."""
        bindings = {name: value for name, value in self.bindings.items() if name != ITEMS}
        return ", ".join(f"{name} = {value}" for name, value in bindings.items())

    def run(self, namespace: Namespace) -> None:
        """Execute the statement in a namespace."""
        namespace.update(self.bindings)
        exec(self.code, namespace)


@dataclass(frozen=True)
class Value:
    """The value that a name has after a step; step -1 stands for an argument.

    A name that is assigned twice has two values.
    """

    name: str
    step: int


class Trace:
    """One run of a function.

    Attributes
    ----------
    steps : list of Step
    before : list of Namespace
        The namespace before each step, and at the end.
    returned : Any
        What the function returned.
    """

    def __init__(self, function: Function, module: Namespace, args: Namespace) -> None:
        self.function, self.args = function, args
        self.steps: list[Step] = []
        self.before: list[Namespace] = []
        namespace, line = {**module, **self.copied(args)}, function.node.lineno
        value = function.returned.value
        assert value is not None
        self.returned_code = compile_node(ast.Expression(value), "eval")
        try:
            with np.errstate(all="ignore"):  # The caller reports values that are not finite.
                for step in unroll(function, namespace):
                    self.steps.append(step)
                    self.before.append(self.copied(namespace))
                    line = step.statement.line
                    step.run(namespace)
                line = function.returned.lineno
                self.returned: Any = eval(self.returned_code, namespace)
        except Exception as error:
            raised = f"{function.name} raises {type(error).__name__}: {error}"
            raise StudyError(f"{function.file}, line {line}: {raised}") from None
        self.before.append(namespace)

    @cached_property
    def changes_in_place(self) -> bool:
        """Whether a run changes the objects that it is given."""
        draws = any(isinstance(arg, np.random.Generator) for arg in self.args.values())
        return draws or any(statement.changes for statement in self.function.statements)

    def copied(self, namespace: Namespace) -> Namespace:
        """Copy a namespace, so that in-place changes of another run do not affect this one."""
        if not self.changes_in_place:
            return dict(namespace)
        memo: dict[int, Any] = {}
        return {
            name: copy.deepcopy(cast(Any, value), memo)
            if isinstance(value, MUTABLE) and name != "__builtins__"
            else value
            for name, value in namespace.items()
        }

    def output(self, returned: Any) -> Any:
        """Return the output: the first element of (out, saved), anything else unchanged."""
        if isinstance(returned, tuple):
            parts = cast(tuple[Any, ...], returned)
            return parts[0] if len(parts) == 2 else parts
        return returned

    def output_with(self, value: Value) -> Callable[[Any], Any]:
        """Return a function that computes the output with a value replaced."""

        def run(replacement: Any) -> Any:
            namespace = self.copied(self.before[value.step + 1])
            namespace[value.name] = replacement
            return self.run_from(namespace, value.step + 1)

        return run

    def output_with_use(self, value: Value, step: int) -> Callable[[Any], Any]:
        """Return a function that computes the output with a value replaced where one step reads it.

        All other steps read the original value.
        """

        def run(replacement: Any) -> Any:
            namespace = self.copied(self.before[step])
            original = namespace[value.name]
            namespace[value.name] = replacement
            self.steps[step].run(namespace)
            if value.name not in self.steps[step].statement.sets:
                namespace[value.name] = original
            return self.run_from(namespace, step + 1)

        return run

    def step_with(self, name: str, step: int, outputs: tuple[str, ...]) -> Callable[[Any], Any]:
        """Return a function that runs one step alone with a name replaced.

        The function returns the named outputs of the step, concatenated.
        """

        def run(replacement: Any) -> Any:
            namespace = {**self.copied(self.before[step]), name: replacement}
            self.steps[step].run(namespace)
            return np.concatenate([np.reshape(namespace[output], -1) for output in outputs])

        return run

    def run_from(self, namespace: Namespace, start: int) -> Any:
        """Run the steps from `start` on and return the output."""
        for step in self.steps[start:]:
            step.run(namespace)
        return self.output(eval(self.returned_code, namespace))

    def data(self, value: Value) -> Any:
        """Return the data of a value, usually an array."""
        return self.before[value.step + 1].get(value.name)

    def values(self) -> Iterator[Value]:
        """Yield the arguments, then all values in the order in which they are set."""
        yield from (Value(name, -1) for name in self.args)
        for step in self.steps:
            yield from (Value(name, step.index) for name in step.statement.sets)

    def definition(self, name: str, step: int) -> Value:
        """Return the value that a name has when a step reads it."""
        earlier = (s.index for s in reversed(self.steps[:step]) if name in s.statement.sets)
        return Value(name, next(earlier, -1))

    def uses(self, value: Value) -> list[int]:
        """Return the steps whose results depend directly on a value."""
        return [
            step.index
            for step in self.steps[value.step + 1 :]
            if value.name in step.statement.reads
            and self.definition(value.name, step.index) == value
        ]


def unroll(function: Function, namespace: Namespace) -> Iterator[Step]:
    """Yield the steps of a function; the namespace must be up to date when a loop is reached."""
    index = 0
    for statement in function.statements:
        iterations, body = [Namespace()], [statement]
        if isinstance(statement.node, ast.For) and can_be_unrolled(statement.node):
            loop = statement.node
            # Evaluated once, because an iterator would be exhausted the second time.
            items = list(eval(compile_node(ast.Expression(loop.iter), "eval"), namespace))
            if 0 < len(items) <= MAX_ITERATIONS:
                iterations = [{cast(ast.Name, loop.target).id: item} for item in items]
                body = [function.statement(node) for node in loop.body]
            else:
                replaced = ast.For(loop.target, ast.Name(ITEMS, ast.Load()), loop.body, [])
                node = ast.copy_location(replaced, loop)
                yield Step(index, statement, {ITEMS: items}, compile_statement(node))
                index += 1
                continue
        codes = [compile_statement(each.node) for each in body]
        for bindings in iterations:
            for each, code in zip(body, codes, strict=True):
                yield Step(index, each, bindings, code)
                index += 1


def can_be_unrolled(loop: ast.For) -> bool:
    """Return whether the body of a loop contains only plain statements."""
    plain = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr)
    is_plain = all(isinstance(node, plain) for node in loop.body)
    return is_plain and not loop.orelse and isinstance(loop.target, ast.Name)


def compile_statement(node: ast.stmt) -> CodeType:
    """Compile a single statement."""
    return compile_node(ast.Module([node], []), "exec")


def compile_node(tree: ast.Module | ast.Expression, mode: str) -> CodeType:
    """Compile a module or an expression."""
    return compile(ast.fix_missing_locations(tree), "<study>", mode)
