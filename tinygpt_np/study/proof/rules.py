"""Give the differentiation rule of a forward line with the names, shapes and values of the line.

A rule is given only if it is right: its gradients are computed for values near those of the run and
compared with the numerical derivative of the line.
"""

import ast
import builtins
import contextlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from string import Formatter
from typing import Any, Literal, cast

import numpy as np

from tinygpt_np.config import generator
from tinygpt_np.ops import contract
from tinygpt_np.study.proof import operations
from tinygpt_np.study.proof.derivative import Match, gradients_of, matched
from tinygpt_np.study.proof.expression import (
    Reader,
    UnknownError,
    arrays_in,
    call,
    constant,
    evaluated,
    letters_in,
    parsed,
)
from tinygpt_np.study.proof.formula import ATOM, PRODUCT, Writer, below, index_text
from tinygpt_np.study.proof.truth import Truth
from tinygpt_np.study.source.parse import Function, names_in
from tinygpt_np.study.source.paths import Namespace, resolve
from tinygpt_np.study.source.steps import Step
from tinygpt_np.study.source.trace import Value

# If a formula is longer, the rule is written in steps: for gradients that several operands need, or
# for all.
SHORT, LONG = 24, 64
# An operand with a longer formula is not named in the reason.
LONGEST_OPERAND = 12
Kind = Literal["none", "shared", "all"]
KINDS: tuple[tuple[Kind, int], ...] = (("none", SHORT), ("shared", LONG), ("all", sys.maxsize))
NAMES_OF_STEPS = ("u", "v", "w", "s", "t", "p", "q", "r", "a", "b", "c", "d", "e", "f", "g", "h")
# The steps of the numerical derivatives, how far values are moved from kinks before them, and the
# error that passes, relative to the norms of the gradient and of the direction.
STEP, TINY, MOVE, TOLERANCE = 1e-6, 1e-30, 1e-3, 1e-7
ROUNDING = 1e-15
NUMBERS = (int, float, np.ndarray, np.number)
SPLIT = Match("split", {}, {}, "The gradients of the parts are joined as the parts were.")
# Rules that are not named with others, because they only move elements.
MOVING = ("transpose", "rearrangement")
# Rules whose reasons are left out in a line with others.
BASIC = ("sum", "difference", "negative", "product")


@dataclass(frozen=True)
class Rule:
    """A rule, its formulas, the reason for them, and the operation that the line calls, or ""."""

    name: str
    formulas: tuple[str, ...] = ()
    why: str = ""
    operation: str = ""


def rule_of(truth: Truth, step: Step) -> Rule | None:
    """Return the rule of a forward line, or None if none is known."""
    if operation := operation_of(truth, step):
        why = f"{operation} has its own derivation and backward."
        return Rule(f"the backward of {operation}", (), why, operation)
    if not any(value.step == step.index for value in truth.differentiable):
        return constant_of(truth, step)
    try:
        line = LineRule(truth, step)
        return line.rule if line.is_right() else None
    except (UnknownError, ArithmeticError, LookupError, TypeError, ValueError):
        return None  # An odd line, such as one that sums a single number.


def constant_of(truth: Truth, step: Step) -> Rule | None:
    """Return the rule of a line that treats what it reads as constant by np.real, or None."""
    definitions = (truth.trace.definition(name, step.index) for name in step.statement.mentions)
    read = ", ".join(value.name for value in definitions if value in truth.differentiable)
    if "np.real(" not in step.statement.text or not read:
        return None
    sets = ", ".join(step.statement.sets)
    why = f"{sets} is treated as a constant, so no gradient flows through this line to {read}."
    return Rule("constant", (), why)


def operation_of(truth: Truth, step: Step) -> str:
    """Return the operation of this package, or the part of a model, that a line calls, or ""."""
    match step.statement.node:
        case ast.Assign(value=ast.Call(ast.Attribute() as called)) if truth.target.kind != "user":
            return called_operation(called, truth.trace.before[step.index])
        case _:
            return ""


def called_operation(called: ast.Attribute, names: Namespace) -> str:
    """Return the operation, or the part of a model, whose forward is called, or "".

    names: the namespace of the call. The configuration selects some operations, and passes an
    option to some.
    """
    if called.attr in ("block_forward", "heads_forward"):
        return called.attr.removesuffix("_forward")
    if called.attr != "forward":
        return ""
    function = eval(ast.unparse(called), dict(names))
    module = getattr(getattr(function, "func", function), "__module__", None) or ""
    if module.startswith("tinygpt_np.ops."):
        return module.rpartition(".")[2]
    return ast.unparse(called.value).rpartition(".")[2]


@dataclass(frozen=True)
class Equation:
    """The value of a name, or a value that is stored in it, or added to it, at an index."""

    name: str
    value: ast.expr
    index: ast.expr | None = None


class LineRule:
    """The rule of a forward line.

    results: what the line sets. steps: intermediate results that have names of their own.
    gradients: those of the steps and of the names that the line reads, in the order of computation.
    """

    def __init__(self, truth: Truth, step: Step) -> None:
        self.truth, self.step, self.statement = truth, step, step.statement
        before = {**truth.trace.at(step.index), **step.binds}
        self.steps: list[Equation] = []
        self.gradients: list[Equation] = []
        self.matches: list[Match] = []
        letters = {
            shape: found
            for shape, stated in stated_shapes(truth)
            if (found := letters_in(stated, len(shape)))
        }
        own = names_in(self.statement.node)
        self.reader = Reader(before, self.is_differentiable, self.stated, letters, own)
        self.known = {*truth.trace.values()}
        self.split_along: int | None = None
        self.results = [each for each in self.read() if self.reader.operands(each.value)]
        self.operands = sorted({n for e in self.results for n in self.reader.operands(e.value)})
        if not self.operands or any(f"d{name}" in self.reader.names for name in self.operands):
            raise UnknownError(self.statement.text)
        for kind, longest in KINDS:
            self.derive(kind)
            formulas = map(self.formula, self.gradients)
            if max(map(len, formulas)) <= longest and not self.is_scattered:
                break

    @property
    def is_scattered(self) -> bool:
        """Whether a part of a gradient is stored at an index, so that it needs a name."""
        parts = (part for each in self.gradients for part in ast.walk(each.value))
        return any(isinstance(part, ast.Attribute) and part.attr == "scattered" for part in parts)

    def is_differentiable(self, name: str) -> bool:
        """Return whether a gradient flows into a name."""
        if any(name == each.name for each in self.steps):
            return True
        definition = self.definition(name)
        is_part = any(mark in definition.name for mark in ".[")
        if is_part and definition.step < 0 and definition not in self.known:
            # An array in an object, such as a parameter of a model.
            return np.asarray(self.reader.names[name]).dtype.kind == "f"
        return definition in self.truth.differentiable

    def definition(self, name: str) -> Value:
        """Return the value that a name has before the line."""
        return self.truth.trace.definition(self.reader.paths.get(name, name), self.step.index)

    def result(self, name: str) -> Value:
        """Return the value that a name has after the line."""
        return Value(self.reader.paths.get(name, name), self.step.index)

    def stated(self, name: str) -> str:
        """Return the shape that the source states for a name, or ""."""
        if self.is_new(name):
            return self.statement.shape
        definition = self.definition(name)
        if definition.step >= 0:
            return self.truth.trace.steps[definition.step].statement.shape
        return shapes_of_arguments(self.truth.target.forward).get(name, "")

    def is_new(self, name: str) -> bool:
        """Return whether the line sets a name that it does not read."""
        path = self.reader.paths.get(name, name)
        return path in self.statement.assigned and path not in self.statement.mentions

    # Reading the statement

    def read(self) -> Iterator[Equation]:
        """Yield what the statement sets."""
        read, set_ = self.reader.read, self.set_name
        match self.statement.node:
            case ast.Assign([ast.Tuple(names)], ast.Tuple(values)) if len(names) == len(values):
                for target, value in zip(names, values, strict=True):
                    yield Equation(set_(target), read(value))
            case ast.Assign([ast.Tuple(names)], ast.Call() as called):
                yield from self.called(names, called)
            case ast.Assign([ast.Subscript(base, index)], value) if self.is_array(base):
                yield Equation(set_(base), read(value), index)
            case ast.Assign([target], value) | ast.AnnAssign(target, value=ast.expr() as value):
                yield Equation(set_(target), read(value))
            case ast.AugAssign(target, operator, value):
                yield Equation(set_(target), ast.BinOp(read(target), operator, read(value)))
            case _:
                raise UnknownError(self.statement.text)

    def set_name(self, target: ast.expr) -> str:
        """Return the name of a target, whose shape and letters are remembered."""
        path = resolve(target, self.reader.original)
        if path is None or path not in self.statement.sets:
            raise UnknownError(ast.unparse(target))
        value = self.truth.trace.data(Value(path, self.step.index))
        known = self.reader.names.get(path, self)
        name = ast.unparse(self.reader.named(path, value))
        if known is not self:  # The line reads the old value.
            self.reader.names[name] = known
        return name

    def is_array(self, target: ast.expr) -> bool:
        """Return whether a target is an array after the line."""
        path = resolve(target, self.reader.original)
        found = self.truth.trace.data(Value(path, self.step.index)) if path is not None else None
        return isinstance(found, np.ndarray)

    def called(self, names: list[ast.expr], node: ast.Call) -> Iterator[Equation]:
        """Yield what a function returns that returns several arrays."""
        name, args = self.reader.function(node)
        if name == "np.split" and len(args) + len(node.keywords) <= 3:
            yield from self.split(names, [*args, *(k.value for k in node.keywords)])
            return
        parts = self.reader.returned(node) if not name else node
        if not isinstance(parts, ast.Tuple) or len(parts.elts) != len(names):
            raise UnknownError(name)
        for target, value in zip(names, parts.elts, strict=True):
            if self.is_array(target):
                yield Equation(self.set_name(target), self.reader.read(value))

    def split(self, names: list[ast.expr], args: list[ast.expr]) -> Iterator[Equation]:
        """Yield the parts of an array that is split along an axis, as slices of it."""
        x, parts, *axes = map(self.reader.read, args)
        shape = self.reader.shape(x)
        axis = int(self.reader.value(axes[0])) % len(shape) if axes else 0
        places = np.split(np.arange(shape[axis]), self.reader.value(parts))
        for target, place in zip(names, places, strict=True):
            text = f"x[{':, ' * axis}{place[0] or ''}:{place[-1] + 1}]"
            part = parsed(text)
            assert isinstance(part, ast.Subscript)
            yield Equation(self.set_name(target), ast.Subscript(x, part.slice))
        self.split_along = axis

    # Deriving the gradients

    def derive(self, kind: Kind) -> None:
        """Find the gradients; kind: which intermediate results get names.

        shared: those whose gradient is needed for several operands.
        """
        for each in self.steps:
            del self.reader.names[each.name]
        self.reader.values.clear()  # The names of steps stand for others now.
        self.steps, self.gradients, self.matches = [], [], []
        terms: dict[str, list[ast.expr]] = {}
        self.trees = list[ast.expr]()
        for result in self.results:
            start = len(self.steps)
            tree = self.with_steps(result.value, kind) if kind != "none" else result.value
            is_new = result.index is None and self.is_new(result.name)
            if self.steps[start:] and not is_new and reads_result(matched(tree, self.reader)):
                tree = self.add_step(tree)
            self.trees.append(tree)
            gradient: ast.expr = ast.Name(f"d{result.name}")
            if result.index is not None:
                gradient = ast.Subscript(gradient, result.index)
            self.apply(tree, gradient, ast.Name(result.name) if is_new else tree, terms)
            for each in reversed(self.steps[start:]):
                self.add_gradient(each.name, terms.pop(each.name))
                self.apply(each.value, ast.Name(f"d{each.name}"), ast.Name(each.name), terms)
        for name, parts in terms.items():
            if self.split_along is None:
                self.add_gradient(name, parts)
        if self.split_along is not None:
            self.matches = [SPLIT]
            parts = ast.Tuple([ast.Name(f"d{each.name}") for each in self.results], ast.Load())
            joined = call("np.concatenate", parts, constant(self.split_along))
            self.gradients.append(Equation(f"d{self.operands[0]}", joined))

    def apply(
        self, tree: ast.expr, gradient: ast.expr, value: ast.expr, terms: dict[str, list[ast.expr]]
    ) -> None:
        """Apply the chain rule to an expression; collect the terms of its operands' gradients."""
        for each in gradients_of(tree, gradient, value, self.reader):
            if isinstance(each, Match):
                self.matches.append(each)
            else:
                terms.setdefault(each.name, []).append(each.value)

    def add_gradient(self, name: str, terms: list[ast.expr]) -> None:
        """Add a gradient that is the sum of some terms; terms at an index have their own line."""
        whole = list[ast.expr]()
        for term in map(self.writer.simplified, terms):
            match term:
                case ast.Call(
                    ast.Attribute(attr="scattered"), [inner, _, ast.Subscript() as place]
                ):
                    self.gradients.append(Equation(f"d{name}", inner, place.slice))
                case _:
                    whole.append(term)
        if whole:
            self.gradients.append(Equation(f"d{name}", self.writer.total(whole)))

    def with_steps(self, tree: ast.expr, kind: str, is_plain: bool = True) -> ast.expr:
        """Return an expression in which some operands are names, added as steps.

        is_plain: whether the gradient of the expression is that of the line, but for a number.
        """
        if isinstance(tree, ast.Name):
            return tree
        found, replaced = matched(tree, self.reader), dict[int, ast.expr]()
        for name, gradient in found.gradients.items():
            operand = found.operands[name]
            count = self.occurrences(operand)
            if not count or isinstance(operand, ast.Name):
                continue
            others = (each for other, each in found.operands.items() if other != name)
            passes = gradient in ("dy", "-dy") or (
                found.name in ("product", "quotient") and all(map(self.is_number, others))
            )
            is_step = kind == "all" or (count > 1 and not (is_plain and passes))
            inner = self.with_steps(operand, kind, is_step or (is_plain and passes))
            replaced[id(operand)] = self.add_step(inner) if is_step else inner
        return with_parts(tree, replaced)

    def occurrences(self, tree: ast.expr) -> int:
        """Return how often names with a gradient occur in an expression."""
        names = (part.id for part in ast.walk(tree) if isinstance(part, ast.Name))
        return sum(name in self.reader.operands(tree) for name in names)

    def add_step(self, tree: ast.expr) -> ast.expr:
        """Give an expression a name."""
        taken = {*self.reader.names, *self.reader.original}
        name = next((n for n in NAMES_OF_STEPS if n not in taken), f"u{len(self.steps)}")
        self.reader.names[name] = self.reader.value(tree)
        self.steps.append(Equation(name, tree))
        return ast.Name(name)

    # Checking

    def is_right(self) -> bool:
        """Return whether the gradients agree with the numerical derivative of the line."""
        rng, names = generator(self.truth.target.seed, "gradcheck"), self.reader.names
        for each, output in zip(self.results, self.outputs({}), strict=True):
            found = self.truth.trace.data(self.result(each.name))
            if each.index is not None:
                found = found[at(each.index, names)]
            if not np.allclose(output, found, rtol=1e-6, atol=0, equal_nan=True):
                return False
        moved = {name: moved_from_kinks(names[name], rng) for name in self.operands}
        weights = [rng.standard_normal(np.shape(output)) for output in self.outputs(moved)]
        gradients = self.evaluated(map(self.in_whole, self.results, weights), moved)
        for name in self.operands:
            found, value = gradients.get(name), moved[name]
            if found is None or np.shape(found) != np.shape(value):
                return False
            direction = rng.standard_normal(np.shape(value))

            def loss(t: complex, name: str = name, direction: Any = direction) -> Any:
                outputs = self.outputs({**moved, name: moved[name] + t * direction})
                return sum(np.sum(w * y) for w, y in zip(weights, outputs, strict=True))

            step = STEP * (float(np.max(np.abs(value), initial=0)) or 1.0)
            # Rounding errors remain where terms cancel.
            terms = sum(
                np.abs(w * y).sum() for w, y in zip(weights, self.outputs(moved), strict=True)
            )
            size = float(np.linalg.norm(found) * np.linalg.norm(direction))
            allowed = TOLERANCE * size + ROUNDING * float(terms) / step
            analytic = float(np.sum(found * direction))
            errors = (abs(each - analytic) for each in numerical_derivatives(loss, step))
            if not any(each <= allowed for each in errors):
                return False
        return True

    def in_whole(self, result: Equation, gradient: Any) -> Any:
        """Return the gradient of what the line sets, which may be a part of an array."""
        if result.index is None:
            return gradient
        shape = np.shape(self.truth.trace.data(self.result(result.name)))
        return operations.scattered(gradient, shape, at(result.index, self.reader.names))

    def outputs(self, changed: Namespace) -> list[Any]:
        """Return what the line sets if some names that it reads have other values."""
        names = self.reader.names | changed
        return [evaluated(each.value, names) for each in self.results]

    def evaluated(self, upstream: Iterable[Any], changed: Namespace) -> dict[str, Any]:
        """Return the gradients of the operands by the rule, for gradients of the results."""
        names = self.reader.names | changed
        for each, gradient, output in zip(
            self.results, upstream, self.outputs(changed), strict=True
        ):
            names[f"d{each.name}"] = gradient
            if each.index is None and self.is_new(each.name):
                names[each.name] = output
        for each in self.steps:
            names[each.name] = evaluated(each.value, names)
        found: dict[str, Any] = {}
        for each in self.gradients:
            name, value = each.name[1:], evaluated(each.value, names)
            if each.index is not None:
                value = operations.scattered(value, np.shape(names[name]), at(each.index, names))
            found[name] = found[name] + value if name in found else value
            if name not in self.operands:
                names[each.name] = found[name]
        return {name: found[name] for name in self.operands if name in found}

    # Writing

    @property
    def told(self) -> list[Match]:
        """The rules that are named: those that only move elements if there are no others."""
        others = [each for each in self.matches if each.name not in MOVING]
        return others or self.matches

    @cached_property
    def rule(self) -> Rule:
        """The rule in words and formulas."""
        names = [*dict.fromkeys(each.name for each in self.told)] or ["copy"]
        name = names[0] if len(names) == 1 else f"chain rule: {', '.join(names)}"
        results = [
            Equation(each.name, tree, each.index)
            for each, tree in zip(self.results, self.trees, strict=True)
        ]
        formulas = [*map(self.formula, [*self.steps, *results, *self.gradients])]
        return Rule(name, tuple(formulas), " ".join(self.reasons()))

    def is_table(self, index: ast.Name) -> bool:
        """Return whether an index is a list of rows, which may repeat."""
        rows = np.asarray(self.reader.names[index.id])
        return rows.ndim == 1 and rows.dtype.kind in "iu"

    @property
    def writer(self) -> Writer:
        """The writer of the formulas, which also simplifies them."""
        return Writer(self.is_number)

    def is_number(self, tree: ast.expr) -> bool:
        """Return whether an expression is a single number."""
        names = (part.id for part in ast.walk(tree) if isinstance(part, ast.Name))
        if not all(name in self.reader.names or hasattr(builtins, name) for name in names):
            return False  # A gradient.
        value = self.reader.value(tree)
        return isinstance(value, NUMBERS) and np.shape(cast(Any, value)) == ()

    def formula(self, equation: Equation) -> str:
        """Return an equation as a formula."""
        name, tree = equation.name, equation.value
        writer = self.writer
        index, value = equation.index, equation.value
        if isinstance(index, ast.Name) and isinstance(value, ast.Name) and self.is_table(index):
            return f"{name}_v = Σ_{{n : {index.id}_n = v}} {value.id}_n"
        if index is not None:
            name += f"[{index_text(index)}]"
            if equation in self.gradients and has_repeats(at(index, self.reader.names)):
                return f"{name} = Σ {self.writer.at(value, PRODUCT)} over equal indices"
        elif indices := writer.indices(tree):
            name += below(indices)
        return f"{name} = {writer.formula(tree)}"

    def reason(self, match: Match) -> str:
        """Return the reason for a rule, with the names of its operands if they are short."""
        written = {name: self.writer.at(tree, ATOM) for name, tree in match.operands.items()}
        short = {name: text if len(text) < 24 else name for name, text in written.items()}
        more = (
            why for name, why in match.more.items() if self.reader.operands(match.operands[name])
        )
        return " ".join(filter(None, (match.why, *more))).format(**short)

    def reasons(self) -> Iterator[str]:
        """Yield the reason for each rule, and for each sum over broadcast axes."""
        told = self.told
        others = [each for each in told if each.name not in BASIC]
        yield from dict.fromkeys(reason for each in others or told if (reason := self.reason(each)))
        if not self.matches:
            yield "The values are the same, so the gradient is the same."
        if any(not self.is_new(each.name) for each in self.results if each.index is None):
            names = ", ".join(f"d{each.name}" for each in self.results)
            yield f"On the right, {names} is the gradient of the new value."
        for each in self.gradients:
            axes = dict.fromkeys(broadcast_axes(each.value))
            for label in axes:
                along = f" along {label.replace(',', ' and ')}" if label else ""
                yield f"{each.name} is summed{along}, because {each.name[1:]} was broadcast{along}."


def broadcast_axes(tree: ast.expr) -> Iterator[str]:
    """Yield the labels of the axes over which an expression sums because of broadcasting."""
    for part in ast.walk(tree):
        match part:
            case ast.Call(ast.Attribute(attr="sum_to"), [*_, ast.Constant(value=str(label))]):
                yield label
            case _:
                pass


def reads_result(match: Match) -> bool:
    """Return whether a gradient is written with the value of the expression."""
    return any(re.search(r"\by\b", gradient) for gradient in match.gradients.values())


def fields_in(text: str) -> set[str]:
    """Return the names in the braces of a text."""
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def has_repeats(index: Any) -> bool:
    """Return whether an index may have an element several times."""
    arrays = arrays_in(index)
    if not arrays or any(each.dtype == bool for each in arrays):
        return False
    places = np.stack([each.reshape(-1) for each in np.broadcast_arrays(*arrays)])
    return np.unique(places, axis=1).shape != places.shape


def shapes_of_arguments(function: Function) -> dict[str, str]:
    """Return the shapes that the first line of a docstring states for arguments."""
    line = (ast.get_docstring(function.node) or "").partition("\n")[0]
    found = contract.parse(line.partition(" -> ")[0]) or []
    return {each.name: each.shape for each in found if isinstance(each, contract.Array)}


def stated_shapes(truth: Truth) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield the shapes of the arguments and of the output, in numbers and in letters."""
    line = (ast.get_docstring(truth.target.forward.node) or "").partition("\n")[0]
    yield np.shape(truth.out), "".join(re.findall(r" -> \w+ (\(.*?\))", line))
    for name, stated in shapes_of_arguments(truth.target.forward).items():
        yield np.shape(truth.target.args[name]), stated


def at(index: ast.expr, names: Mapping[str, Any]) -> Any:
    """Return the value of an index."""
    return evaluated(ast.Subscript(parsed("op.index"), index), names)


def moved_from_kinks(value: Any, rng: np.random.Generator) -> Any:
    """Return an array with each element moved a little, so that none is zero or equals another."""
    noise = rng.standard_normal(np.shape(value))
    return np.where(np.asarray(value) == 0, MOVE * noise, value * (1 + MOVE * noise))


def numerical_derivatives(loss: Callable[[complex], Any], step: float) -> Iterator[float]:
    """Yield the derivative at 0 by the complex step and by a central difference.

    np.real is treated as constant by the first only, and np.abs is not by the second.
    """
    with contextlib.suppress(UnknownError, TypeError, ValueError):
        yield complex(loss(1j * TINY)).imag / TINY
    yield float((loss(step) - loss(-step)) / (2 * step))


def with_parts(tree: Any, replaced: Mapping[int, ast.expr]) -> Any:
    """Return a copy of a tree with some parts, given by their ids, replaced."""
    if id(tree) in replaced:
        return replaced[id(tree)]
    if isinstance(tree, list):
        return [with_parts(part, replaced) for part in cast(list[Any], tree)]
    if not isinstance(tree, ast.expr):
        return tree
    return type(tree)(**{n: with_parts(part, replaced) for n, part in ast.iter_fields(tree)})
