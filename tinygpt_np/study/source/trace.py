"""Run a function one step at a time, and rerun the rest of it with one value replaced.

A step is a statement, or one iteration of a statement in a loop that contains only plain
statements.
"""

import ast
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
    """The value that a name has after a step; step -1 stands for an argument."""

    name: str
    step: int


class Trace:
    """One run of a function.

    before: the namespace before each step, and at the end. returned: what the function returned.
    """

    def __init__(self, function: Function, module: Namespace, args: Namespace) -> None:
        self.function, self.module, self.args = function, module, args
        self.steps: list[Step] = []
        self.before: list[Namespace] = []
        # Whether a run changes the objects that it is given.
        self.changes_in_place = any(statement.changes for statement in function.statements) or any(
            isinstance(arg, np.random.Generator) for arg in args.values()
        )
        namespace, line = {**module, **self.copied(args)}, function.node.lineno
        self.result = compiled(function.result)
        try:
            with np.errstate(all="ignore"):  # The caller reports values that are not finite.
                for step in unroll(function, namespace):
                    self.steps.append(step)
                    self.before.append(self.copied(namespace))
                    line = step.statement.line
                    step.run(namespace)
                line = function.returned.line
                self.returned: Any = eval(self.result, namespace)
        except Exception as error:
            raised = f"{function.name} raises {type(error).__name__}: {error}"
            raise StudyError(f"{function.file}, line {line}: {raised}") from None
        self.before.append(namespace)

    def copied(self, namespace: Namespace) -> Namespace:
        """Copy a namespace, so that in-place changes of another run do not affect this one."""
        if not self.changes_in_place:
            return dict(namespace)
        mutable: Namespace = {n: v for n, v in namespace.items() if isinstance(v, MUTABLE)}
        mutable.pop("__builtins__", None)
        return {**namespace, **copy.deepcopy(mutable)}

    def output(self, returned: Any) -> Any:
        """Return the output: the first element of (out, saved), anything else unchanged."""
        if isinstance(returned, tuple):
            parts = cast(tuple[Any, ...], returned)
            return parts[0] if len(parts) == 2 else parts
        return returned

    def output_with(self, value: Value, replacement: Any) -> Any:
        """Return the output with a value replaced."""
        namespace = {**self.copied(self.before[value.step + 1]), value.name: replacement}
        return self.run_from(namespace, value.step + 1)

    def output_with_use(self, value: Value, step: int, replacement: Any) -> Any:
        """Return the output with a value replaced where one step reads it, and nowhere else."""
        namespace = self.copied(self.before[step])
        original = namespace[value.name]
        namespace[value.name] = replacement
        self.steps[step].run(namespace)
        if value.name not in self.steps[step].statement.sets:
            namespace[value.name] = original
        return self.run_from(namespace, step + 1)

    def output_for(self, args: Namespace) -> Any:
        """Return the output for other arguments."""
        return self.run_from({**self.module, **self.copied(args)}, 0)

    def run_from(self, namespace: Namespace, start: int) -> Any:
        """Run the steps from `start` on and return the output."""
        for step in self.steps[start:]:
            step.run(namespace)
        return self.output(eval(self.result, namespace))

    def step_with(self, name: str, step: int, replacement: Any) -> Namespace:
        """Run one step alone with a name replaced, and return the namespace after it."""
        namespace = {**self.copied(self.before[step]), name: replacement}
        self.steps[step].run(namespace)
        return namespace

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
        loop, iterations, body = statement.node, [Namespace()], [statement]
        codes = [compiled(loop)]
        if isinstance(loop, ast.For) and can_be_unrolled(loop):
            # Evaluated once, because an iterator would be exhausted the second time.
            items = list(eval(compiled(loop.iter), namespace))
            if 0 < len(items) <= MAX_ITERATIONS:
                iterations = [{cast(ast.Name, loop.target).id: item} for item in items]
                body = [function.statement(node) for node in loop.body]
                codes = [compiled(node) for node in loop.body]
            else:
                iterations = [{ITEMS: items}]
                replaced = ast.For(loop.target, ast.Name(ITEMS, ast.Load()), loop.body, [])
                codes = [compiled(ast.copy_location(replaced, loop))]
        for bindings in iterations:
            for each, code in zip(body, codes, strict=True):
                yield Step(index, each, bindings, code)
                index += 1


def can_be_unrolled(loop: ast.For) -> bool:
    """Return whether the body of a loop contains only plain statements."""
    plain = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr)
    is_plain = all(isinstance(node, plain) for node in loop.body)
    return is_plain and not loop.orelse and isinstance(loop.target, ast.Name)


def compiled(node: ast.stmt | ast.expr) -> CodeType:
    """Compile a statement for exec, or an expression for eval."""
    is_expression = isinstance(node, ast.expr)
    tree = ast.Expression(node) if is_expression else ast.Module([node], [])
    return compile(ast.fix_missing_locations(tree), "<study>", "eval" if is_expression else "exec")
