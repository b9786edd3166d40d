"""The mistakes that are made in a backward, made on purpose: one at a time, in its syntax tree.

General tools for mutation testing change operators and constants. They do not know `@`, `.T`, axes,
masks or what was saved, which is where gradients go wrong; this does. It reads a function and gives
every version of it that differs by one mistake.
"""

import ast
import copy
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

# A kind of mistake, and what to put in the place of a piece of the tree.
Change = tuple[str, ast.AST | list[ast.stmt]]
KINDS = {
    "+= to =": "a second path of the gradient overwrites the first",
    "1/N": "the mean over the wrong number, or over rows that do not count",
    "axis": "a sum or mean over the wrong axis, or over all",
    "call skipped": "the backward of one layer, or an exp, is left out",
    "condition": "the bias, or the mask, that may be None is taken for granted or forgotten",
    "copy dropped": "the gradient shares the memory of what came in",
    "factor 1/2": "a result is half of what it should be",
    "factor doubled": "a factor is multiplied by, or divided by, twice",
    "factor dropped": "a factor of the chain rule is missing",
    "factor inverted": "multiplied where it should be divided",
    "keepdims": "without keepdims, a sum broadcasts along the wrong axis",
    "mask": "the mask is off by one, inverted or ignored",
    "operands swapped": "b @ a for a @ b, b - a for a - b, b / a for a / b",
    "order": "the right gradients in the wrong order",
    "other GELU": "the derivative of the tanh form for the exact one, or the other way round",
    "saved swapped": "what forward saved is unpacked in the wrong order",
    "scatter": "of a token that occurs twice only the last place counts",
    "sign": "minus for plus",
    "stale value": "another array of the same shape, mostly the one of the line before",
    "sum and mean": "sum for mean, mean for sum",
    "sum dropped": "broadcast in forward, not summed in backward",
    "term doubled": "a term counted twice",
    "term dropped": "a path of the gradient forgotten",
    "transpose": "a transpose too few or too many",
    "upstream ignored": "ones in the place of the gradient that comes in",
    "wrong name": "a gradient kept under the name of another layer",
}
SWAPPED_NAMES = {
    ".ln_1": ".ln_2",
    ".ln_2": ".ln_1",
    ".mlp.c_proj": ".attn.c_proj",
    ".attn.c_proj": ".mlp.c_proj",
}


@dataclass(frozen=True)
class Mutation:
    """A function with one mistake in it. before, after: the changed statement, as one line."""

    function: str
    kind: str
    line: int
    before: str
    after: str
    tree: ast.FunctionDef = field(repr=False, compare=False)


def mutations(source: str, name: str) -> list[Mutation]:
    """All mutations of the function or method called `name`; each text appears once."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    original = next(function for function in functions if function.name == name)
    scope, before = Scope(source, tree, original), ast.unparse(original)
    found: dict[str, Mutation] = {}
    for number, node in enumerate(ast.walk(original)):
        for kind, replacement in changes(node, scope):
            mutant = replaced(original, number, replacement)
            after = ast.unparse(mutant)
            if after != before and after not in found:
                line = getattr(node, "lineno", original.lineno)
                old, new = difference(before.splitlines(), after.splitlines())
                found[after] = Mutation(name, kind, line, old, new, mutant)
    return list(found.values())


class Scope:
    """What a function's names hold: shapes, from the comments, and the output's gradient."""

    def __init__(self, source: str, tree: ast.Module, function: ast.FunctionDef) -> None:
        self.upstream = next(a.arg for a in function.args.args if a.arg != "self")
        if not self.upstream.startswith("d"):
            self.upstream = ""
        lines = source.splitlines()
        # Shapes in words, and lines; what stands in forward was there before.
        self.shapes: dict[str, str] = {}
        self.lines: dict[str, int] = {}
        for definition in (*forwards_of(function, tree), function):
            docstring = ast.get_docstring(definition) or ""
            for argument in definition.args.args:
                described = re.search(rf"\b{argument.arg} (\([^()]*\))", docstring)
                self.note(argument.arg, described, definition is function, definition.lineno)
            for node in ast.walk(definition):
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    comment = re.search(r"# (\([^()]*\))$", lines[(node.end_lineno or 0) - 1])
                    self.note(node.targets[0].id, comment, definition is function, node.lineno)
        unpackings = [
            n for n in ast.walk(function) if isinstance(n, ast.Assign) and is_unpacking(n)
        ]
        self.saved = {name.id for node in unpackings for name in names_in(node.targets[0])}
        self.own = self.saved | {n for n, line in self.lines.items() if line >= function.lineno}
        # Second names for one value: dx = dshifted.
        self.aliases = {
            node.targets[0].id: node.value.id
            for node in ast.walk(function)
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Name)
        }

    def note(self, name: str, shape: re.Match[str] | None, own: bool, line: int) -> None:
        if shape is not None:
            self.shapes.setdefault(name, shape.group(1))
            self.lines.setdefault(name, line if own else 0)

    def value(self, name: str) -> str:
        """The first name of what a name stands for."""
        while name in self.aliases:
            name = self.aliases[name]
        return name

    def alike(self, name: ast.Name) -> str | None:
        """Another value of the same shape that was there before this line, the nearest one."""
        shape = self.shapes.get(name.id)
        known = [
            other
            for other in self.own
            if self.value(other) != self.value(name.id)
            and self.shapes.get(other) == shape
            and shape is not None
            if self.lines[other] < name.lineno and other.startswith("d") == name.id.startswith("d")
        ]
        return max(known, key=lambda other: (self.lines[other], other), default=None)


def forwards_of(backward: ast.FunctionDef, tree: ast.Module) -> list[ast.FunctionDef]:
    """The forward that a backward undoes."""
    name = backward.name.removesuffix("_steps").replace("backward", "forward")
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return [function for function in functions if function.name == name]


def names_in(node: ast.AST) -> list[ast.Name]:
    return [part for part in ast.walk(node) if isinstance(part, ast.Name)]


def is_unpacking(node: ast.Assign) -> bool:
    """a, b, … = saved"""
    return isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Name)


def changes(node: ast.AST, scope: Scope) -> Iterator[Change]:
    """The mistakes that can be made at one piece of the tree."""
    match node:
        case ast.BinOp():
            yield from of_operator(node)
        case ast.UnaryOp(op=ast.USub(), operand=operand) if ast.unparse(operand) != "1":
            # Not -1, which is an axis or a place: the last.
            yield "sign", operand
        case ast.Attribute(value=value, attr="T" | "mT"):
            yield "transpose", value
        case ast.Call():
            yield from of_call(node)
        case ast.IfExp(body=body, orelse=orelse):
            yield "condition", body
            yield "condition", orelse
        case ast.Subscript(value=ast.Attribute(attr="shape"), slice=index):
            if ast.unparse(index) == "-1":
                yield "1/N", ast.Subscript(node.value, ast.Constant(0), ast.Load())
        case ast.Name(ctx=ast.Load()):
            yield from of_name(node, scope)
        case ast.Assign():
            yield from of_assignment(node)
        case ast.AugAssign(target=ast.Name(id=name)):
            target = ast.Name(name, ast.Store())
            yield "+= to =", ast.Assign([target], node.value)
            yield "term dropped", []
            yield "term doubled", [node, node]
            yield "sign", ast.AugAssign(target, ast.Sub(), node.value)
        case ast.Expr(value=ast.Call(func=func, args=[table, ids, rows])):
            if ast.unparse(func) == "np.add.at":
                place = ast.Subscript(table, ids, ast.Store())
                yield "scatter", ast.AugAssign(place, ast.Add(), rows)
                yield "scatter", ast.Assign([place], rows)
                yield "term dropped", []
        case ast.Return(value=ast.Tuple(elts=parts)):
            for pair in itertools.pairwise(range(len(parts))):
                yield "order", ast.Return(ast.Tuple(exchanged(parts, *pair), ast.Load()))
        case ast.Constant(value=str(text)) if text in SWAPPED_NAMES:
            yield "wrong name", ast.Constant(SWAPPED_NAMES[text])
        case _:
            pass


def of_operator(node: ast.BinOp) -> Iterator[Change]:
    left, right = node.left, node.right

    def binary(a: ast.expr, operator: ast.operator, b: ast.expr) -> ast.BinOp:
        return ast.BinOp(a, operator, b)

    match node.op:
        case ast.MatMult():
            yield "operands swapped", binary(right, node.op, left)
            if isinstance(left, ast.Name):
                yield "transpose", binary(transposed(left), node.op, right)
            if isinstance(right, ast.Name):
                yield "transpose", binary(left, node.op, transposed(right))
        case ast.Add():
            yield "term dropped", left
            yield "term dropped", right
            yield "term doubled", binary(node, node.op, right)
            yield "sign", binary(left, ast.Sub(), right)
        case ast.Sub():
            yield "term dropped", left
            yield "term dropped", ast.UnaryOp(ast.USub(), right)
            yield "term doubled", binary(node, node.op, right)
            yield "sign", binary(left, ast.Add(), right)
            yield "operands swapped", binary(right, node.op, left)
        case ast.Mult():
            yield "factor dropped", left
            yield "factor dropped", right
            yield "factor doubled", binary(node, node.op, right)
        case ast.Div():
            yield "factor dropped", left
            yield "factor doubled", binary(node, node.op, right)
            yield "operands swapped", binary(right, node.op, left)
            yield "factor inverted", binary(left, ast.Mult(), right)
        case _:
            pass


def transposed(name: ast.Name) -> ast.expr:
    return ast.Attribute(name, "mT", ast.Load())


def of_call(node: ast.Call) -> Iterator[Change]:
    def call(*args: ast.expr, func: ast.expr = node.func, **changed: ast.expr | None) -> ast.Call:
        keywords = {k.arg: k.value for k in node.keywords} | changed
        kept = [ast.keyword(name, value) for name, value in keywords.items() if value is not None]
        return ast.Call(func, list(args or node.args), kept)

    match node.func:
        case ast.Attribute(value=value, attr="sum" | "mean" as method):
            other = ast.Attribute(value, "mean" if method == "sum" else "sum", ast.Load())
            yield "sum and mean", call(func=other)
            for keyword in node.keywords:
                if keyword.arg == "axis":
                    wrong = 0 if ast.unparse(keyword.value) == "-1" else -1
                    yield "axis", call(axis=ast.Constant(wrong))
                    yield "axis", call(axis=None)
                elif keyword.arg == "keepdims":
                    yield "keepdims", call(keepdims=None)
            yield "sum dropped", value
        case ast.Attribute(value=value, attr="copy"):
            yield "copy dropped", value
        case ast.Attribute(attr="backward") if len(node.args) == 2:
            # What goes in has the shape of what comes out, but where a layer changes the width.
            yield "call skipped", node.args[0]
        case _:
            match ast.unparse(node.func), node.args:
                case "np.tri", _:
                    yield "mask", call(k=ast.Constant(1))
                    yield "mask", call(k=ast.UnaryOp(ast.USub(), ast.Constant(1)))
                case "np.where", [condition, chosen, other]:
                    yield "mask", chosen
                    yield "mask", call(condition, other, chosen)
                case "np.concatenate", [ast.List(elts=parts)]:
                    for pair in itertools.pairwise(range(len(parts))):
                        yield "order", call(ast.List(exchanged(parts, *pair), ast.Load()))
                case "np.exp" | "np.full_like", [argument, *_]:
                    yield "call skipped", argument
                case "reversed", [argument]:
                    yield "order", argument
                case _:
                    pass


def of_name(node: ast.Name, scope: Scope) -> Iterator[Change]:
    if node.id == scope.upstream:
        yield "upstream ignored", expression(f"np.ones_like({node.id})")
    if node.id == "count":
        # All rows in place of those that are counted.
        yield "1/N", expression("log_probs.shape[0]")
    other = scope.alike(node)
    if other is not None:
        yield "stale value", ast.Name(other, ast.Load())


def of_assignment(node: ast.Assign) -> Iterator[Change]:
    match node.targets[0]:
        case ast.Tuple(elts=parts) if is_unpacking(node):
            for pair in itertools.pairwise(range(len(parts))):
                swapped = ast.Tuple(exchanged(parts, *pair), ast.Store())
                yield "saved swapped", ast.Assign([swapped], node.value)
        case ast.Name(id=name) if name.startswith("d") and not isinstance(node.value, ast.UnaryOp):
            yield "sign", ast.Assign(node.targets, ast.UnaryOp(ast.USub(), node.value))
            half = ast.BinOp(node.value, ast.Div(), ast.Constant(2))
            yield "factor 1/2", ast.Assign(node.targets, half)
        case _:
            pass


def exchanged(parts: list[ast.expr], first: int, second: int) -> list[ast.expr]:
    """The list with two places exchanged."""
    changed = list(parts)
    changed[first], changed[second] = changed[second], changed[first]
    return changed


def expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def replaced(
    function: ast.FunctionDef, number: int, replacement: ast.AST | list[ast.stmt]
) -> ast.FunctionDef:
    """A copy of the function in which the node of this number, as ast.walk counts, is another."""
    mutant = copy.deepcopy(function)
    target = next(itertools.islice(ast.walk(mutant), number, None))
    fresh = copy.deepcopy(replacement)
    for node in fresh if isinstance(fresh, list) else [fresh]:
        ast.copy_location(node, target)

    class Replace(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST | list[ast.stmt]:
            return fresh if node is target else self.generic_visit(node)

    Replace().visit(mutant)
    return ast.fix_missing_locations(mutant)


def difference(before: list[str], after: list[str]) -> tuple[str, str]:
    """The statements where two functions differ, before and after."""
    same_start = sum(1 for _ in itertools.takewhile(same, zip(before, after, strict=False)))
    doubled = len(after) > len(before)
    same_start -= doubled  # Of a line that was doubled, the first is shown as well.
    shorter = min(len(before), len(after)) - same_start - doubled
    pairs = zip(reversed(before), reversed(after), strict=False)
    same_end = sum(1 for _ in itertools.takewhile(same, itertools.islice(pairs, shorter)))
    old, new = (
        before[same_start : len(before) - same_end],
        after[same_start : len(after) - same_end],
    )
    return "; ".join(map(str.strip, old)), "; ".join(map(str.strip, new)) or "(nothing)"


def same(pair: tuple[str, str]) -> bool:
    return pair[0] == pair[1]
