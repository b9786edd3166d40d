"""One line of a backward that somebody typed, worked out without giving it to Python.

The line comes from a web page, so it is only parsed; typed_expression.py works it out, and knows
names, numbers, arithmetic and the functions listed in typed_values.py. Everything else is refused
with the reason. How large a value may become is known before it is made.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from tinygpt_np.study.typed_expression import Reader, dotted
from tinygpt_np.study.typed_values import (
    FUNCTIONS,
    Refused,
    attempt,
    broadcast,
    fresh,
    is_array,
    operands,
    shown,
)

MAX_LENGTH, MAX_NODES, MAX_DEPTH = 300, 200, 20


@dataclass(frozen=True)
class Typed:
    """What a line comes to: with `adds`, the name then holds its old value plus `value`.

    name: what it sets, or "" for a right side alone. value: an array in it is a new one; that of
    np.add.at(name, ids, rows) has the shape of `name`.
    """

    name: str
    adds: bool
    value: Any


def evaluate(text: str, names: Mapping[str, Any], calls: Mapping[str, Callable[..., Any]]) -> Typed:
    """What the line `text` comes to; or Refused, and nothing else, with the reason.

    names: what is known before it. calls: functions beside the listed ones, by their text in the
    line, as "softmax.backward"; they are given the arrays of `names` read-only.
    """
    statement, reader = parse(text), Reader(names, calls)
    with np.errstate(all="ignore"):
        match statement:
            case ast.Expr(value=ast.Call(func=func) as call) if dotted(func) == "np.add.at":
                return scattered(call, reader)
            case ast.Expr(value=value):
                return Typed("", False, fresh(reader.plan(value)()))
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                return assigned(name, value, reader)
            case ast.AugAssign(target=ast.Name() as target, op=ast.Add(), value=value):
                return added(target, value, reader)
            case _:
                raise Refused(
                    "a line is `name = …`, `name += …`, `np.add.at(name, ids, rows)`"
                    " or a right side alone"
                )


def parse(text: str) -> ast.stmt:
    """The one statement of a text, which is small enough to be walked."""
    if len(text) > MAX_LENGTH:
        raise Refused(f"the line has {len(text):,} characters; at most {MAX_LENGTH} are read")
    if not text.strip().isprintable():
        raise Refused("only one line of printable characters is read")
    # With no quotes before it, a # begins a comment.
    code = text.partition("#")[0].strip()
    if "'" in code or '"' in code:
        raise Refused("text in quotes is not evaluated here")
    if not code.isascii():
        # Python reads a full-width n as an n.
        strange = next(character for character in code if not character.isascii())
        raise Refused(f"`{strange}` is no character of a line here")
    try:
        # Of a whole file that is wrong, Python would look for the line on disk.
        body = ast.parse(code, mode="single").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Refused(f"Python cannot read this: {getattr(error, 'msg', error)}") from None
    if len(body) != 1:
        raise Refused(f"one statement is read, not {len(body)}")
    level: list[ast.AST] = [body[0]]
    nodes = depth = 0
    while level:
        nodes, depth = nodes + len(level), depth + 1
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    if nodes > MAX_NODES or depth > MAX_DEPTH:
        raise Refused("the line has too many parts, or parts too deep in each other")
    return body[0]


def assigned(name: str, node: ast.expr, reader: Reader) -> Typed:
    if name.startswith("_") or name in {"np", "bool", *FUNCTIONS, *reader.calls}:
        raise Refused(f"`{name}` is not a name to set")
    value = reader.plan(node)()
    rest = other_terms(node, name)
    return Typed(name, rest is not None, fresh(reader.plan(rest)() if rest else value))


def other_terms(node: ast.expr, name: str) -> ast.expr | None:
    """`a + b` of the sum `name + a + b`; None of all that is not a sum with `name` in it."""
    if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add)):
        return None
    for side, other in ((node.left, node.right), (node.right, node.left)):
        if dotted(side) == name:
            return other
        if inner := other_terms(side, name):
            return ast.BinOp(inner, ast.Add(), other)
    return None


def added(target: ast.Name, node: ast.expr, reader: Reader) -> Typed:
    held, step = reader.plan(target), reader.plan(node)
    before, value = held(), step()
    what = f"{shown(target, before)} += {shown(node, value)}"
    operands(what, before, value)
    shape = broadcast([np.shape(before), np.shape(value)], what)
    if is_array(before) and shape != np.shape(before):
        raise Refused(f"{what}: the sum would have the shape {shape}")
    # On a copy, and only to hear what NumPy says of the dtypes.
    attempt(what, cast(Any, operator).iadd, fresh(before), value)
    return Typed(target.id, True, fresh(value))


def scattered(call: ast.Call, reader: Reader) -> Typed:
    match call:
        case ast.Call(args=[ast.Name() as target, ids, rows], keywords=[]):
            steps = [reader.plan(node) for node in (target, ids, rows)]
        case _:
            raise Refused("np.add.at takes a name, the places, and what to add there")
    before, index, values = (step() for step in steps)
    what = f"np.add.at({shown(target, before)}, {shown(ids, index)}, {shown(rows, values)})"
    operands(what, before, values)
    if not np.ndim(before):
        raise Refused(f"{what}: a number has no places")
    zeros = np.zeros_like(before)
    places = np.shape(reader.picked(zeros, index, what))
    if broadcast([places, np.shape(values)], what) != places:
        raise Refused(f"{what}: the places have the shape {places}")
    attempt(what, np.add.at, zeros, index, values)
    return Typed(target.id, True, zeros)
