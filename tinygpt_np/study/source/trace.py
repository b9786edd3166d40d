"""Record one run of a function, and rerun it with one value replaced."""

import ast
import copy
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from tinygpt_np.gradcheck.convention import STANDARD, Convention, is_output
from tinygpt_np.gradcheck.tree import leaves, map_leaves, with_leaves
from tinygpt_np.study.source.parse import Function, Names, StudyError
from tinygpt_np.study.source.paths import Namespace, overlap, parsed, read, store
from tinygpt_np.study.source.steps import Step, Stepper


@dataclass(frozen=True)
class Value:
    """The value that a name has after a step; step -1 stands for an argument.

    name: a path, such as `x`, `self.a` or `params['W1']`.
    """

    name: str
    step: int


class Trace:
    """One run of a function.

    before: the namespace before each step, and at the end. end: the return statement that was
    reached. returned: what the function returned.
    """

    def __init__(
        self, function: Function, module: Namespace, args: Namespace,
        convention: Convention = STANDARD,
    ) -> None:  # fmt: skip
        self.function, self.module, self.args = function, module, args
        self.convention = convention
        self.steps: list[Step] = []
        self.before: list[Namespace] = []
        self.recorded: dict[Value, Any] = {}
        # Whether an array changes under another name, as through a view.
        self.has_aliases = False
        used = copied(args)
        # The latest copy of each array.
        self.latest: dict[str, Any] = {
            name: arg for name, arg in args.items() if isinstance(arg, np.ndarray)
        }
        stepper = Stepper(function, module, used)
        try:
            with np.errstate(all="ignore"):  # The caller reports values that are not finite.
                for step in stepper:
                    self.record_parts(step, stepper.namespace)
                    self.before.append({**stepper.namespace})
                    step.run(stepper.namespace)
                    self.steps.append(self.with_observed_changes(step, stepper.namespace))
                    self.record(self.steps[-1], stepper.namespace)
                assert stepper.end is not None
                self.end = stepper.end
                self.returned: Any = self.end.run(stepper.namespace)
        except StudyError:
            raise
        except Exception as error:
            raised = f"{function.name} raises {type(error).__name__}: {error}"
            raise StudyError(f"{function.file}, line {stepper.line}: {raised}") from None
        self.before.append(stepper.namespace)
        # The arguments that a run changes, so that each rerun needs a copy.
        self.changed = [name for name, arg in args.items() if has_changed(arg, used[name])]
        self.is_pure = not self.changed and not self.changes_in_place(stepper.namespace)

    def with_observed_changes(self, step: Step, namespace: Namespace) -> Step:
        """Return a step with the arrays that it changed under another name, as through a view."""
        statement = step.statement
        for name, before in self.latest.items():
            after = read(namespace, name)
            if name not in statement.sets and differ(before, after):
                statement = replace(statement, changes=(*statement.changes, name))
                self.has_aliases = True
        return step if statement is step.statement else replace(step, statement=statement)

    def record(self, step: Step, namespace: Namespace) -> None:
        """Record copies of the values that a step sets."""
        for name in step.statement.sets:
            value = read(namespace, name)
            self.recorded[Value(name, step.index)] = value
            self.latest.pop(name, None)
            if isinstance(value, np.ndarray):
                self.latest[name] = self.recorded[Value(name, step.index)] = value.copy()

    def record_parts(self, step: Step, namespace: Namespace) -> None:
        """Record the arrays that a step reads from an object or list that an earlier step made."""
        for name in step.statement.reads:
            if parsed(name)[1]:
                value, part = self.definition(name, step.index), read(namespace, name)
                if value.step >= 0 and value not in self.recorded and isinstance(part, np.ndarray):
                    self.recorded[value] = part.copy()

    def changes_in_place(self, namespace: Namespace) -> bool:
        """Return whether a step changes an object, or a function reads the names of this run."""
        if any(step.statement.changes for step in self.steps):
            return True
        named = [Value(name, step.index) for step in self.steps for name in step.statement.sets]
        for value in named:
            recorded, now = self.recorded[value], self.before[value.step + 1].get(value.name)
            if isinstance(recorded, np.ndarray):
                if not isinstance(now, np.ndarray) or differ(now, recorded):
                    return True
            elif isinstance(recorded, Iterator) or parsed(value.name)[1]:
                return True
        functions = (each for each in self.recorded.values() if inspect.isfunction(each))
        return any(function.__globals__ is namespace for function in functions)

    def start(self, replaced: Namespace | None = None) -> Namespace:
        """Return the namespace at the start of a run, with leaves of the arguments replaced."""
        args = {**self.args, **copied({name: self.args[name] for name in self.changed})}
        args = with_leaves(args, replaced) if replaced else args
        return {**args, **self.module, **args}

    def at(self, step: int) -> Namespace:
        """Return the namespace before a step of another run."""
        if self.is_pure:
            return {**self.before[step]}
        namespace = self.start()
        for each in self.steps[:step]:
            each.run(namespace)
        return namespace

    def output(self, returned: Any) -> Any:
        """Return the output; several outputs in one vector."""
        found = self.convention.outputs(returned)
        if [*self.outputs] == ["out"]:
            return found
        every = leaves({"out": found})
        return np.concatenate([np.ravel(every[name]) for name in self.outputs])

    @cached_property
    def outputs(self) -> dict[str, Any]:
        """The outputs of floats by name: out, or out[0], out['h'] and so on."""
        every, is_tuple = dict[str, Any](), isinstance(self.returned, tuple)
        if not self.convention.has_saved or (is_tuple and self.returned[1:]):
            every = leaves({"out": self.convention.outputs(self.returned)})
        found = {name: each for name, each in every.items() if is_output(each)}
        if not found:
            place = f"{self.function.file}, line {self.end.statement.line}"
            raise StudyError(f"{place}: forward must return (out, saved), with out a float array")
        return found

    def upstream(self, doutput: np.ndarray) -> Any:
        """Return the upstream gradient in the form of the outputs."""
        places = np.cumsum([np.size(each) for each in self.outputs.values()])[:-1]
        parts = np.split(doutput.reshape(-1), places)
        shaped = zip(self.outputs.items(), parts, strict=True)
        by_name = {name: part.reshape(np.shape(each)) for (name, each), part in shaped}
        form = {"out": self.convention.outputs(self.returned)}
        return map_leaves(lambda name, _: by_name.get(name), form)["out"]

    def output_with(self, value: Value, replacement: Any) -> Any:
        """Return the output with a value replaced."""
        if value.step < 0:
            return self.run_from(self.start({value.name: replacement}), 0)
        namespace = self.at(value.step + 1)
        store(namespace, value.name, replacement)
        return self.run_from(namespace, value.step + 1)

    def output_with_use(self, value: Value, step: int, replacement: Any) -> Any:
        """Return the output with a value replaced where one step reads it, and nowhere else."""
        namespace = self.at(step)
        original = read(namespace, value.name)
        store(namespace, value.name, replacement)
        try:
            self.steps[step].run(namespace)
        finally:
            if value.name not in self.steps[step].statement.sets:
                store(namespace, value.name, original)
        return self.run_from(namespace, step + 1)

    def output_for(self, args: Namespace) -> Any:
        """Return the output for other arguments."""
        args = {**args, **copied({name: args[name] for name in self.changed})}
        return self.run_from({**args, **self.module, **args}, 0)

    def can_be_replaced(self, value: Value) -> bool:
        """Return whether the output is the same with a value replaced by itself.

        It is not if the value is changed in place under another name.
        """
        if value.step < 0 or not self.has_aliases:
            return True
        data = self.data(value)
        runs = [self.output_with(value, copy.copy(data))]
        runs += [self.output_with_use(value, use, copy.copy(data)) for use in self.uses(value)]
        output = self.output(self.returned)
        return all(np.array_equal(run, output, equal_nan=True) for run in runs)

    def run_from(self, namespace: Namespace, start: int) -> Any:
        """Run the steps from `start` on and return the output."""
        for step in self.steps[start:]:
            step.run(namespace)
        return self.output(self.end.run(namespace))

    def data(self, value: Value) -> Any:
        """Return the data of a value, usually an array."""
        if value.step < 0:
            return read(self.args, value.name)
        if value in self.recorded:
            return self.recorded[value]
        return read(self.before[value.step + 1], value.name)

    def values(self) -> Iterator[Value]:
        """Yield the arguments, then all values in the order in which they are set."""
        for name, arg in self.args.items():
            yield Value(name, -1)
            if isinstance(arg, dict | list | tuple) or self.function.methods:
                yield from (Value(each, -1) for each in leaves({name: arg}))
        yield from sorted(self.recorded, key=lambda value: value.step)

    def definition(self, name: str, step: int) -> Value:
        """Return the value that a name has when a step reads it."""
        earlier = (s.index for s in reversed(self.steps[:step]) if self.defines(s, name))
        return Value(name, next(earlier, -1))

    def defines(self, step: Step, name: str) -> bool:
        """Return whether a step sets a name, its container or a part of it."""
        return any(overlap(name, each) for each in step.statement.sets)

    def uses(self, value: Value) -> list[int]:
        """Return the steps whose results depend directly on a value and affect the output."""
        return [
            step.index
            for step in self.steps[value.step + 1 :]
            if step.index in self.live
            and any(overlap(value.name, name) for name in step.statement.reads)
            and self.definition(value.name, step.index) == value
        ]

    @cached_property
    def output_names(self) -> frozenset[str]:
        """The names in the output; what is only saved does not count."""
        last = self.end.statement.node
        assert isinstance(last, ast.Return)
        result = last.value
        if self.convention.has_saved and isinstance(result, ast.Tuple) and len(result.elts) > 1:
            result = ast.Tuple(result.elts[:-1], ast.Load())
        output = ast.copy_location(ast.Return(result), last)
        return frozenset(Names(output, self.before[-1]).mentioned)

    @cached_property
    def live(self) -> set[int]:
        """The steps on which the output depends; what is only saved does not count."""
        needed, found = {*self.output_names}, set[int]()
        for step in reversed(self.steps):
            sets = step.statement.sets
            if any(overlap(name, each) for each in needed for name in sets):
                found.add(step.index)
                needed -= {*step.statement.assigned} - {*step.statement.changes}
                needed |= step.statement.reads
        return found


def copied(args: Namespace) -> Namespace:
    """Return deep copies of arguments, which keep what they share; some kinds have no copy."""
    modules = {id(module): module for module in [*sys.modules.values()]}
    try:
        return copy.deepcopy(args, modules)
    except (TypeError, copy.Error):
        return {**args}


def differ(before: Any, after: Any) -> bool:
    """Return whether two arrays differ in their shapes or any bit; nothing else is compared."""
    if before is after or not all(isinstance(each, np.ndarray) for each in (before, after)):
        return False
    is_same = before.shape == after.shape and before.tobytes() == after.tobytes()
    return before.dtype != object and not is_same


def has_changed(before: Any, after: Any) -> bool:
    """Return whether a run changed an argument; one that draws random numbers counts as changed."""
    here, there = leaves({"": before}), leaves({"": after})
    if here.keys() != there.keys():
        return True
    for one, other in zip(here.values(), there.values(), strict=True):
        if differ(one, other):
            return True
        if isinstance(one, np.random.Generator | Iterator) or not same(one, other):
            return True
    return False


def same(one: Any, other: Any) -> bool:
    """Return whether two numbers or texts are equal; other kinds are not compared."""
    return not isinstance(one, bool | int | float | str) or one == other
