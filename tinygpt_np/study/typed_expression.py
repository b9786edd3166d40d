"""Turns the tree of a typed expression into steps, and runs them: an interpreter of few words.

All of an expression is read before any of it is run. What is refused has then done nothing, and
nothing hides in the branch of an `if` that is not taken.
"""

import ast
import difflib
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np

from tinygpt_np.study.typed_values import (
    ATTRIBUTES,
    CONSTANTS,
    FUNCTIONS,
    KINDS,
    MAX_ELEMENTS,
    MAX_INTEGER,
    METHODS,
    OPERATORS,
    Function,
    Refused,
    Shape,
    attempt,
    broadcast,
    is_array,
    is_int,
    is_number,
    is_row,
    is_slice,
    operands,
    product_shape,
    read_only,
    shown,
)

Step = Callable[[], Any]

MAX_EXPONENT = 64
# Elements of all values of a line, and multiplications of all its `@`: about a second.
MAX_WORK = 50_000_000


class Reader:
    """Reads expressions among some names and calls, which are those of `evaluate`.

    Each method that returns a Step looks at the tree alone; the values come when the step is run.
    """

    def __init__(self, names: Mapping[str, Any], calls: Mapping[str, Callable[..., Any]]) -> None:
        self.names, self.calls = names, calls
        self.work = 0

    def plan(self, node: ast.expr) -> Step:
        """How to work out `node`, and that it comes to something that may be passed on."""
        step = self.read(node)

        def run() -> Any:
            value = step()
            self.check(value, node)
            return value

        return run

    def read(self, node: ast.expr) -> Step:
        match node:
            case ast.Constant(value=None | bool() | int() | float() as value):
                return lambda: value
            case ast.Name(id=name):
                known = self.known(name)
                return lambda: known
            case ast.Tuple(elts=parts):
                steps = [self.plan(part) for part in parts]
                return lambda: tuple(step() for step in steps)
            case ast.List(elts=parts):
                steps = [self.plan(part) for part in parts]
                return lambda: [step() for step in steps]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.negative(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                return self.binary(left, op, right)
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in OPERATORS:
                return self.binary(left, op, right)
            case ast.Compare(left=left, ops=[op], comparators=[ast.Constant(value=None)]) if (
                isinstance(op, ast.Is | ast.IsNot)
            ):
                asked, wanted = self.plan(left), isinstance(op, ast.Is)
                return lambda: (asked() is None) == wanted
            case ast.IfExp(test=test, body=body, orelse=orelse):
                decide, one, other = self.plan(test), self.plan(body), self.plan(orelse)
                return lambda: one() if truth(decide(), test) else other()
            case ast.Attribute():
                return self.attribute(node)
            case ast.Subscript(value=value, slice=index):
                return self.subscript(value, index)
            case ast.Call():
                return self.call(node)
            case _:
                kind = type(node).__name__
                raise Refused(f"`{ast.unparse(node)}` ({kind}) is not evaluated here")

    def check(self, value: Any, node: ast.expr) -> None:
        """Refuses all that is not a number of some size, an array of numbers, or None."""
        if isinstance(value, tuple | list):
            for part in cast(list[Any], value):
                self.check(part, node)
        elif is_array(value):
            if value.dtype.kind not in "biuf":
                raise Refused(f"`{ast.unparse(node)}` holds {value.dtype}, not real numbers")
            if value.size == 0:
                raise Refused(f"`{ast.unparse(node)}` {value.shape} is empty")
            self.spend(value.size, f"`{ast.unparse(node)}`")
        elif isinstance(value, int):
            if abs(value) > MAX_INTEGER:
                raise Refused(f"`{ast.unparse(node)}` is too large an integer")
        elif not (value is None or isinstance(value, float)):
            raise Refused(f"`{ast.unparse(node)}` is a {type(value).__name__}, not a value here")

    def spend(self, elements: int, what: str, each: int = 1) -> None:
        """Counts so many elements, each made of so many multiplications, and stops too many."""
        if elements > MAX_ELEMENTS:
            raise Refused(f"{what} would have more than {MAX_ELEMENTS:,} elements")
        self.work += elements * each
        if self.work > MAX_WORK:
            raise Refused("the line takes too much work")

    def known(self, name: str) -> Any:
        # Whoever passes the names of a module passes its __builtins__ too.
        names = [n for n in self.names if not n.startswith("_")]
        if name in names:
            return read_only(self.names[name])
        near = difflib.get_close_matches(name, names, n=1)
        meant = f" (did you mean `{near[0]}`?)" if near else ""
        listed = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
        raise Refused(f"there is no `{name}` here{meant}; known: {listed or 'nothing'}")

    def negative(self, node: ast.expr) -> Step:
        step = self.plan(node)

        def run() -> Any:
            value = step()
            what = f"-{shown(node, value)}"
            operands(what, value)
            return attempt(what, operator.neg, value)

        return run

    def binary(self, left: ast.expr, op: ast.AST, right: ast.expr) -> Step:
        first, second = self.plan(left), self.plan(right)
        symbol, function = OPERATORS[type(op)]

        def run() -> Any:
            a, b = first(), second()
            what = f"{shown(left, a)} {symbol} {shown(right, b)}"
            operands(what, a, b)
            if symbol == "@":
                shape, inner = product_shape(np.shape(a), np.shape(b), what)
            else:
                shape, inner = broadcast([np.shape(a), np.shape(b)], what), 1
            self.spend(math.prod(shape), what, inner)
            whole = isinstance(a, int) and isinstance(b, int)
            if symbol == "**" and whole and abs(b) > MAX_EXPONENT:
                raise Refused(f"{what}: the exponent is too large")
            return attempt(what, function, a, b)

        return run

    def attribute(self, node: ast.Attribute) -> Step:
        name = dotted(node)
        if name in CONSTANTS:
            return lambda: CONSTANTS[name]
        if name.startswith("np."):
            known = ", ".join((*CONSTANTS, *FUNCTIONS))
            raise Refused(f"`{name}` is not known here; of NumPy there are {known}")
        if node.attr == "dtype":
            raise Refused("`.dtype` stands only behind `dtype=`")
        if node.attr not in ATTRIBUTES:
            raise Refused(f"`.{node.attr}` is not known here; there are .T, .mT, .shape, .dtype")
        step = self.plan(node.value)
        return lambda: attempt(ast.unparse(node), ATTRIBUTES[node.attr], owner(step(), node))

    def dtype(self, node: ast.expr) -> Step:
        match node:
            case ast.Name(id="bool" | "float" as name):
                return lambda: np.dtype(name)
            case ast.Attribute(value=array, attr="dtype"):
                step = self.plan(array)
                return lambda: owner(step(), node).dtype
            case _:
                raise Refused(f"dtype must be {KINDS['dtype'][1]}, not `{ast.unparse(node)}`")

    def subscript(self, node: ast.expr, index: ast.expr) -> Step:
        step, place = self.plan(node), self.index(index)

        def run() -> Any:
            value, where = step(), place()
            return self.picked(value, where, f"{shown(node, value)}[{ast.unparse(index)}]")

        return run

    def index(self, node: ast.expr) -> Step:
        """As `plan`, with what stands only between brackets: colons, and three dots."""
        match node:
            case ast.Slice(lower=lower, upper=upper, step=stride):
                ends = [self.plan(end or ast.Constant(None)) for end in (lower, upper, stride)]
                return lambda: slice(*(end() for end in ends))
            case ast.Tuple(elts=parts):
                steps = [self.index(part) for part in parts]
                return lambda: tuple(step() for step in steps)
            case ast.Constant(value=value) if value is ...:
                return lambda: ...
            case _:
                return self.plan(node)

    def picked(self, value: Any, index: Any, what: str) -> Any:
        """value[index], of a size that is known before."""
        if isinstance(value, tuple | list) and (is_int(index) or is_slice(index)):
            return attempt(what, operator.getitem, value, index)
        if not is_array(value):
            raise Refused(f"{what}: this cannot be indexed so")
        # With a 0 for each array in the index, what is left are the axes that it does not touch.
        plain: list[Any] = []
        gathered: list[Shape] = []
        parts = cast(tuple[Any, ...], index if isinstance(index, tuple) else (index,))
        for part in parts:
            places, shapes = touched(part, what)
            plain += places
            gathered += shapes
        rest = attempt(what, operator.getitem, value, tuple(plain))
        self.spend(math.prod((*np.shape(rest), *broadcast(gathered, what))), what)
        return attempt(what, operator.getitem, value, index)

    def call(self, node: ast.Call) -> Step:
        name = dotted(node.func)
        if name in self.calls:
            return self.given(name, node)
        if name in FUNCTIONS:
            return self.listed(name, FUNCTIONS[name], node, node.args)
        if not isinstance(node.func, ast.Attribute) or name.startswith("np."):
            known = ", ".join((*self.calls, *FUNCTIONS))
            raise Refused(f"`{ast.unparse(node.func)}` cannot be called here; there are {known}")
        method = node.func.attr
        if method not in METHODS:
            known = ", ".join(f".{name}" for name in METHODS)
            raise Refused(f"the method `.{method}` is not known here; there are {known}")
        return self.listed(f".{method}", METHODS[method], node, [node.func.value, *node.args])

    def given(self, name: str, node: ast.Call) -> Step:
        if node.keywords:
            raise Refused(f"{name} takes its arguments in their order, without names")
        steps = [self.plan(arg) for arg in node.args]

        def run() -> Any:
            values = [step() for step in steps]
            return attempt(described(node, node.args, values), self.calls[name], *values)

        return run

    def listed(self, name: str, function: Function, node: ast.Call, args: list[ast.expr]) -> Step:
        required, optional = function.required.split(), function.optional.split()
        if required[-1].startswith("*"):
            required[-1:] = [required[-1][1:]] * (len(args) - 1)
        placed, further = args[: len(required)], args[len(required) :]
        named = [(keyword.arg, keyword.value) for keyword in node.keywords]
        named += zip(optional[:1], further, strict=False)
        chosen = {parameter: arg for parameter, arg in named if parameter in optional}
        counts = len(placed) == len(required), len(further) <= 1, len(chosen) == len(named)
        if not all(counts) or (further and not optional):
            takes = ", ".join((*function.required.split(), *(f"{name}=" for name in optional)))
            raise Refused(f"`{ast.unparse(node)}`: {name} takes {takes}, each once")
        steps = [self.argument(name, *pair) for pair in zip(required, placed, strict=True)]
        options = {p: self.argument(name, p, arg) for p, arg in chosen.items()}

        def run() -> Any:
            values = [step() for step in steps]
            switches = {parameter: step() for parameter, step in options.items()}
            what = described(node, placed, values)
            shapes = function.meeting(dict(zip(required, values, strict=True)) | switches)
            self.spend(math.prod(broadcast(shapes, what)), what)
            return attempt(what, function.run, *values, **switches)

        return run

    def argument(self, name: str, parameter: str, node: ast.expr) -> Step:
        """An argument of a listed function, which must be of the kind of its parameter."""
        step = self.dtype(node) if parameter == "dtype" else self.plan(node)
        fits, description = KINDS[parameter]

        def run() -> Any:
            value = step()
            if not fits(value):
                raise Refused(f"{name}: {parameter} must be {description}: {shown(node, value)}")
            return np.asarray(value) if parameter == "array" else value

        return run


def touched(part: Any, what: str) -> tuple[list[Any], list[Shape]]:
    """A part of an index, with integers in the place of arrays; and the shapes of those arrays."""
    if part is None or part is ... or is_int(part) or is_slice(part):
        return [part], []
    if is_row(part, is_int):
        return [0], [np.shape(part)]
    if is_array(part) and part.dtype.kind in "iu":
        return [0], [part.shape]
    if is_array(part) and part.dtype.kind == "b" and part.ndim:
        return [0] * part.ndim, [(int(part.sum()),)]
    raise Refused(f"{what}: an index is made of integers, slices, None and arrays")


def dotted(node: ast.expr) -> str:
    """The text of names joined by dots, as "np.add.at"; "" for anything else."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            return f"{front}.{attr}" if (front := dotted(value)) else ""
        case _:
            return ""


def owner(value: Any, node: ast.Attribute) -> np.ndarray:
    """The array whose attribute `node` asks for."""
    if not is_array(value):
        raise Refused(f"`{ast.unparse(node)}`: only an array has a .{node.attr}")
    return np.asarray(value)


def truth(value: Any, node: ast.expr) -> bool:
    if value is None or is_number(value):
        return bool(value)
    raise Refused(f"`{shown(node, value)}` is neither true nor false")


def described(call: ast.Call, args: list[ast.expr], values: list[Any]) -> str:
    """A call as it stands, and the shapes of its arguments: "merge(dv) with dv (2, 3)"."""
    shapes = [
        shown(arg, value)
        for arg, value in zip(args, values, strict=True)
        if is_array(value) and value.ndim
    ]
    return ast.unparse(call) + (f" with {', '.join(shapes)}" if shapes else "")
