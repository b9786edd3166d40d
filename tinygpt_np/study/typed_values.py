"""What a typed line may hold and use: its values, functions and attributes, and their shapes."""

import ast
import itertools
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from tinygpt_np.contract import SavedValues

Shape = tuple[int, ...]

MAX_ELEMENTS, MAX_INTEGER = 200_000, 2**63


class Refused(ValueError):  # noqa: N818 - not an error: a line is refused, and this is the answer.
    """The line is not one that is evaluated here; says why."""


def is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic)


def is_operand(value: Any) -> bool:
    return is_array(value) or isinstance(value, int | float)


def is_number(value: Any) -> bool:
    return is_operand(value) and np.ndim(value) == 0


def is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_size(value: Any) -> bool:
    return is_int(value) and 1 <= value <= MAX_ELEMENTS


def is_row(value: Any, of: Callable[[Any], bool]) -> bool:
    return isinstance(value, tuple | list) and all(map(of, cast(list[Any], value)))


def is_slice(value: Any) -> bool:
    """A slice whose ends are integers, where it has ends."""
    if not isinstance(value, slice):
        return False
    ends = cast(Any, value)
    return all(end is None or is_int(end) for end in (ends.start, ends.stop, ends.step))


# What an argument must be, by the name of its parameter.
Kind = tuple[Callable[[Any], bool], str]
OPERAND: Kind = (is_operand, "a number or an array")
SIZE: Kind = (is_size, f"a size from 1 to {MAX_ELEMENTS:,}")
INTEGER: Kind = (is_int, "an integer")
KINDS: dict[str, Kind] = {
    "array": (is_array, "an array"),
    "arrays": (lambda v: is_row(v, is_array), "a list of arrays"),
    "axis": (lambda v: v is None or is_int(v) or is_row(v, is_int), "an integer, a tuple or None"),
    "axis1": INTEGER,
    "axis2": INTEGER,
    "condition": OPERAND,
    "dtype": (lambda v: isinstance(v, np.dtype), "bool, float or the dtype of an array"),
    "fill": OPERAND,
    "k": (lambda v: is_int(v) and abs(v) <= MAX_ELEMENTS, "a small integer"),
    "keepdims": (lambda v: isinstance(v, bool), "True or False"),
    "M": SIZE,
    "N": SIZE,
    "number": (is_number, "a single number"),
    "shape": (lambda v: is_size(v) or is_row(v, is_size), "a size or a tuple of sizes"),
    "sizes": (lambda v: is_int(v) or is_row(v, is_int), "an integer or a tuple of integers"),
    "x": OPERAND,
    "y": OPERAND,
}


@dataclass(frozen=True)
class Function:
    """run: what to call. required, optional: its parameters, each of a kind in KINDS.

    Only the first of the optional ones may be given by its place, as in x.sum(0). meeting: of the
    arguments, the shapes that broadcast to that of the result, where it may outgrow them.
    """

    run: Callable[..., Any]
    required: str
    optional: str = ""
    meeting: Callable[[dict[str, Any]], list[Shape]] = lambda args: []


def filling(args: dict[str, Any]) -> list[Shape]:
    """The shape that is asked for, and that of what is to fill it."""
    shape = args["shape"]
    return [(shape,) if is_int(shape) else tuple(shape), np.shape(args.get("fill", 0))]


FUNCTIONS = {
    "float": Function(float, "number"),
    "np.abs": Function(np.abs, "x"),
    "np.exp": Function(np.exp, "x"),
    "np.log": Function(np.log, "x"),
    "np.sqrt": Function(np.sqrt, "x"),
    "np.square": Function(np.square, "x"),
    "np.tanh": Function(np.tanh, "x"),
    "np.sum": Function(np.sum, "x", "axis keepdims"),
    "np.mean": Function(np.mean, "x", "axis keepdims"),
    "np.max": Function(np.max, "x", "axis keepdims"),
    "np.where": Function(np.where, "condition x y", "", lambda a: [*map(np.shape, a.values())]),
    "np.zeros_like": Function(np.zeros_like, "x", "dtype"),
    "np.ones_like": Function(np.ones_like, "x", "dtype"),
    "np.full_like": Function(np.full_like, "x fill", "dtype"),
    "np.zeros": Function(np.zeros, "shape", "dtype", filling),
    "np.ones": Function(np.ones, "shape", "dtype", filling),
    "np.full": Function(np.full, "shape fill", "dtype", filling),
    "np.tri": Function(np.tri, "N", "M k dtype", lambda a: [(a["N"], a.get("M", a["N"]))]),
    "np.broadcast_to": Function(np.broadcast_to, "x shape"),
    "np.concatenate": Function(
        np.concatenate, "arrays", "axis", lambda a: [(sum(map(np.size, a["arrays"])),)]
    ),
}
METHODS = {
    "sum": Function(np.ndarray.sum, "array", "axis keepdims"),
    "mean": Function(np.ndarray.mean, "array", "axis keepdims"),
    "max": Function(np.ndarray.max, "array", "axis keepdims"),
    "copy": Function(np.ndarray.copy, "array"),
    "swapaxes": Function(np.ndarray.swapaxes, "array axis1 axis2"),
    "reshape": Function(np.ndarray.reshape, "array *sizes"),
    "transpose": Function(np.ndarray.transpose, "array *sizes"),
}
ATTRIBUTES: dict[str, Callable[[Any], Any]] = {
    "T": lambda array: array.T,
    "mT": lambda array: array.mT,
    "shape": lambda array: array.shape,
}
CONSTANTS = {"np.pi": np.pi, "np.newaxis": None}

python = cast(Any, operator)
OPERATORS: dict[type[ast.AST], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", python.add),
    ast.Sub: ("-", python.sub),
    ast.Mult: ("*", python.mul),
    ast.Div: ("/", python.truediv),
    ast.Pow: ("**", python.pow),
    ast.MatMult: ("@", python.matmul),
    ast.Eq: ("==", python.eq),
    ast.NotEq: ("!=", python.ne),
    ast.Lt: ("<", python.lt),
    ast.LtE: ("<=", python.le),
    ast.Gt: (">", python.gt),
    ast.GtE: (">=", python.ge),
}


def attempt(what: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """The result, or Refused with what NumPy or a given function has against it."""
    try:
        return function(*args, **options)
    except Exception as error:
        raise Refused(f"{what}: {error}") from None


def operands(what: str, *values: Any) -> None:
    """Refuses what is neither a number nor an array."""
    for value in values:
        if not is_operand(value):
            kind = "None" if value is None else f"a {type(value).__name__}"
            raise Refused(f"{what}: this is for numbers and arrays, not {kind}")


def shown(node: ast.expr, value: Any) -> str:
    """As it stands in the line, and the shape if there is one: "dy (6, 7)"."""
    text = ast.unparse(node)
    if isinstance(node, ast.BinOp | ast.Compare | ast.IfExp | ast.UnaryOp):
        text = f"({text})"
    return f"{text} {np.shape(value)}" if is_array(value) and np.ndim(value) else text


def read_only(value: Any) -> Any:
    """The value, with nothing in it that could be changed in place."""
    if isinstance(value, np.ndarray):
        view = np.asarray(cast(Any, value)).view()
        view.flags.writeable = False
        return view
    return rebuilt(value, read_only)


def fresh(value: Any) -> Any:
    """The value, with its arrays copied, in the layout that they have."""
    if isinstance(value, np.ndarray):
        return np.array(cast(Any, value), order="K")
    return rebuilt(value, fresh)


def rebuilt(value: Any, part: Callable[[Any], Any]) -> Any:
    """A tuple or list with each part replaced; anything else as it is."""
    if isinstance(value, list):
        return list(map(part, cast(list[Any], value)))
    if not isinstance(value, tuple):
        return value
    parts = map(part, cast(tuple[Any, ...], value))
    if not isinstance(value, SavedValues):
        return tuple(parts)
    # Without the note of what it was saved by, no backward takes it.
    saved = SavedValues(parts)
    saved.operation, saved.shape = value.operation, value.shape
    return saved


def broadcast(shapes: Iterable[Shape], what: str) -> Shape:
    """The shape in which shapes meet in arithmetic."""
    met: list[int] = []
    for sizes in itertools.zip_longest(*(shape[::-1] for shape in shapes), fillvalue=1):
        differing = list(dict.fromkeys(size for size in sizes if size != 1))
        if len(differing) > 1:
            one, other = differing[:2]
            raise Refused(f"{what}: the sizes {one} and {other} differ, and neither is 1")
        met += differing or [1]
    return tuple(met[::-1])


def product_shape(a: Shape, b: Shape, what: str) -> tuple[Shape, int]:
    """The shape of a @ b, and the size that it sums over."""
    if not (a and b):
        raise Refused(f"{what}: @ is for arrays with axes; a number is multiplied by *")
    inner, other = a[-1], b[-2:][0]
    if inner != other:
        raise Refused(f"{what}: the inner sizes {inner} and {other} differ")
    columns = b[-1:] if len(b) > 1 else ()
    return (*broadcast([a[:-2], b[:-2]], what), *a[-2:-1], *columns), inner
