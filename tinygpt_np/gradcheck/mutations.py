"""The planted bugs: common mistakes in a backward, made one at a time in its syntax tree.

General tools for mutation testing change operators and constants. They know nothing about `@`,
`.T`, axes, masks or saved values, which is where gradients go wrong. `mutations` returns every
version of a function with one such mistake, `sites` lists the functions they are planted in, and
EQUIVALENT lists the mutants that change no gradient.
"""

import ast
import contextlib
import copy
import itertools
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from tinygpt_np import ops
from tinygpt_np.model import gpt

# A kind of mistake, and the replacement of a node of the tree.
Change = tuple[str, ast.AST | list[ast.stmt]]
KINDS = {
    "+= to =": "a second path of the gradient overwrites the first",
    "1/N": "the mean over the wrong number of rows, or over ignored rows",
    "axis": "a sum or mean over the wrong axis, or over all",
    "call skipped": "the backward of one layer, or an exp, is left out",
    "condition": "an optional bias or mask is always assumed, or never used",
    "copy dropped": "the gradient shares its memory with the upstream gradient",
    "factor 1/2": "a result is half of what it should be",
    "factor doubled": "a factor is multiplied by, or divided by, twice",
    "factor dropped": "a factor of the chain rule is missing",
    "factor inverted": "multiplied instead of divided",
    "keepdims": "without keepdims, a sum broadcasts along the wrong axis",
    "mask": "the mask is off by one, inverted or ignored",
    "operands swapped": "b @ a for a @ b, b - a for a - b, b / a for a / b",
    "order": "the right gradients in the wrong order",
    "other GELU": "the derivative of the tanh form for the exact form, or vice versa",
    "saved swapped": "saved values are unpacked in the wrong order",
    "scatter": "only the last occurrence of a repeated token counts",
    "sign": "minus for plus",
    "stale value": "another array of the same shape, usually from the line before",
    "sum and mean": "sum for mean, mean for sum",
    "sum dropped": "broadcast in forward, not summed in backward",
    "term doubled": "a term is counted twice",
    "term dropped": "a path of the gradient is forgotten",
    "transpose": "a transpose is missing, or one too many",
    "upstream ignored": "ones instead of the upstream gradient",
    "wrong name": "a gradient is stored under the name of another layer",
}
SWAPPED_NAMES = {
    ".ln_1": ".ln_2",
    ".ln_2": ".ln_1",
    ".mlp.c_proj": ".attn.c_proj",
    ".attn.c_proj": ".mlp.c_proj",
}


@dataclass(frozen=True)
class Mutation:
    """A function with one mistake. before, after: the changed statements, as one line."""

    function: str
    kind: str
    line: int
    before: str
    after: str
    tree: ast.FunctionDef = field(repr=False, compare=False)


def mutations(source: str, name: str) -> list[Mutation]:
    """Return all mutations of the function or method called `name`, without duplicates."""
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
    """The names of a function: the upstream gradient, and the shapes that comments state."""

    def __init__(self, source: str, tree: ast.Module, function: ast.FunctionDef) -> None:
        self.upstream = next(a.arg for a in function.args.args if a.arg != "self")
        if not self.upstream.startswith("d"):
            self.upstream = ""
        lines = source.splitlines()
        # The shape of each name as a string, and its line; 0 for the names of forward.
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
        # Second names of the same value: dx = dshifted.
        self.aliases = {
            node.targets[0].id: node.value.id
            for node in ast.walk(function)
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Name)
        }

    def note(self, name: str, shape: re.Match[str] | None, own: bool, line: int) -> None:
        """Record the first shape stated for a name."""
        if shape is not None:
            self.shapes.setdefault(name, shape.group(1))
            self.lines.setdefault(name, line if own else 0)

    def value(self, name: str) -> str:
        """Return the first name of the value of this name."""
        while name in self.aliases:
            name = self.aliases[name]
        return name

    def alike(self, name: ast.Name) -> str | None:
        """Return the nearest value before this line that has the same shape."""
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
    """Return the forward that belongs to a backward."""
    name = backward.name.removesuffix("_steps").replace("backward", "forward")
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return [function for function in functions if function.name == name]


def names_in(node: ast.AST) -> list[ast.Name]:
    """Return all names in a tree."""
    return [part for part in ast.walk(node) if isinstance(part, ast.Name)]


def is_unpacking(node: ast.Assign) -> bool:
    """Return whether a statement is of the form a, b, … = saved."""
    return isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Name)


def changes(node: ast.AST, scope: Scope) -> Iterator[Change]:
    """Yield the mistakes that can be made at one node of the tree."""
    match node:
        case ast.BinOp():
            yield from of_operator(node)
        case ast.UnaryOp(op=ast.USub(), operand=operand) if ast.unparse(operand) != "1":
            # Not -1, which is an axis or an index.
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
    """Yield the mistakes that can be made at an operator."""
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
    """Return name.mT."""
    return ast.Attribute(name, "mT", ast.Load())


def of_call(node: ast.Call) -> Iterator[Change]:
    """Yield the mistakes that can be made at a call."""

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
            # The input has the shape of the output unless the layer changes the width.
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
    """Yield the mistakes that can be made where a name is read."""
    if node.id == scope.upstream:
        yield "upstream ignored", expression(f"np.ones_like({node.id})")
    if node.id == "count":
        # All rows instead of those that are not ignored.
        yield "1/N", expression("log_probs.shape[0]")
    other = scope.alike(node)
    if other is not None:
        yield "stale value", ast.Name(other, ast.Load())


def of_assignment(node: ast.Assign) -> Iterator[Change]:
    """Yield the mistakes that can be made at an assignment."""
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
    """Return the list with two elements exchanged."""
    changed = list(parts)
    changed[first], changed[second] = changed[second], changed[first]
    return changed


def expression(text: str) -> ast.expr:
    """Parse an expression."""
    return ast.parse(text, mode="eval").body


def replaced(
    function: ast.FunctionDef, number: int, replacement: ast.AST | list[ast.stmt]
) -> ast.FunctionDef:
    """Return a copy of the function with the node of this number, in ast.walk order, replaced."""
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
    """Return the statements in which two functions differ, before and after."""
    same_start = sum(1 for _ in itertools.takewhile(same, zip(before, after, strict=False)))
    doubled = len(after) > len(before)
    same_start -= doubled  # If a line was doubled, both lines are shown.
    shorter = min(len(before), len(after)) - same_start - doubled
    pairs = zip(reversed(before), reversed(after), strict=False)
    same_end = sum(1 for _ in itertools.takewhile(same, itertools.islice(pairs, shorter)))
    old, new = (
        before[same_start : len(before) - same_end],
        after[same_start : len(after) - same_end],
    )
    return "; ".join(map(str.strip, old)), "; ".join(map(str.strip, new)) or "(nothing)"


def same(pair: tuple[str, str]) -> bool:
    """Return whether both are equal."""
    return pair[0] == pair[1]


# Sites


@dataclass(frozen=True)
class Site:
    """A function to plant bugs in. operation: its name, or "gpt". owner: its module or class."""

    operation: str
    owner: Any
    module: ModuleType
    function: str

    def mutations(self) -> list[Mutation]:
        """Return the mutants of the function."""
        assert self.module.__file__ is not None
        source = Path(self.module.__file__).read_text(encoding="utf-8")
        special = [OTHER_GELU[self.operation]] if self.operation in OTHER_GELU else []
        return mutations(source, self.function) + special

    def compiled(self, mutation: Mutation) -> Callable[..., Any]:
        """Compile a mutant with the globals of its module."""
        names = dict(vars(self.module))
        tree = ast.Module([mutation.tree], [])
        exec(compile(tree, f"<mutant of {self.operation}>", "exec"), names)
        return names[self.function]

    @contextlib.contextmanager
    def planted(self, mutant: Callable[..., Any]) -> Generator[None]:
        """Replace the function that all code calls by a mutant for a while."""
        # Nothing calls backward_steps, so its mutants replace backward.
        name = "backward" if self.function == "backward_steps" else self.function
        original = getattr(self.owner, name)
        setattr(self.owner, name, mutant)
        try:
            yield
        finally:
            setattr(self.owner, name, original)


def other_gelu(other: str) -> Mutation:
    """Return a backward that uses the derivative of the other form of GELU."""
    text = f"""
def backward(dy, saved):
    from tinygpt_np.ops import {other}
    return {other}.backward(dy, {other}.forward(saved[0])[1])
"""
    tree = ast.parse(text).body[0]
    assert isinstance(tree, ast.FunctionDef)
    after = f"return {other}.backward(dy, {other}.forward(x)[1])"
    return Mutation("backward", "other GELU", 0, "(all of it)", after, tree)


OTHER_GELU = {"gelu": other_gelu("gelu_exact"), "gelu_exact": other_gelu("gelu")}


def sites() -> list[Site]:
    """Return every backward of ops/ and of model/gpt.py, in reading order."""
    found = [
        Site(name, module, module, function)
        for name, module in ((name, getattr(ops, name)) for name in ops.__all__)
        for function in ("backward", "backward_steps")
        if hasattr(module, function)
    ]
    found += [Site("gpt", gpt.GPT, gpt, name) for name in ("backward", "block_backward")]
    return [*found, Site("gpt", gpt.Gradients, gpt, "keep")]


def count(operations: Sequence[str]) -> int:
    """Return the number of mutants of these operations."""
    return sum(len(site.mutations()) for site in sites() if site.operation in operations)


# Every operation with planted bugs; "gpt", which takes longest, comes first.
OPERATIONS = tuple(dict.fromkeys(site.operation for site in reversed(sites())))


# The mutants that change no gradient, each with the reason; every other mutant must be detected.
# The key is the operation, the function, and the statement before and after.
EQUIVALENT: dict[tuple[str, str, str, str], str] = {
    (
        "attention", "backward",
        "batch, n_head, time, head_size = q.shape",
        "batch, n_head, time, head_size = v.shape",
    ): "queries and values have the same shape",
    (
        "attention", "backward",
        "visible = np.tri(time, dtype=bool)",
        "visible = np.tri(time, dtype=bool, k=1)",
    ): "exp of a hidden score is 0, so the backward of softmax gives exactly 0 there",
    (
        "attention", "backward",
        "dscores = np.where(visible, dmasked, 0)",
        "dscores = dmasked",
    ): "exp of a hidden score is 0, so the backward of softmax gives exactly 0 there",
    (
        "attention", "backward",
        "dproducts = dscores * scale",
        "dproducts = dmasked * scale",
    ): "exp of a hidden score is 0, so the backward of softmax gives exactly 0 there",
    (
        "cross_entropy", "backward",
        "dlogits = (probs - chosen) * counted[:, None] * (float(dloss) / count)",
        "dlogits = (probs - chosen) * counted[:, None] * counted[:, None] * (float(dloss) / count)",
    ): "counted is 0 or 1, and so is its square",
    (
        "cross_entropy", "backward_steps",
        "dlog_probs = dpicked * chosen",
        "dlog_probs = dpicked * chosen * chosen",
    ): "chosen is 0 or 1, and so is its square",
    (
        "cross_entropy", "backward_steps",
        "dshifted = dlog_probs.copy()",
        "dshifted = dlog_probs",
    ): "dlog_probs is not read after dshifted is added to",
    (
        "cross_entropy", "backward_steps",
        "dlog_total = -dlog_probs.sum(axis=-1, keepdims=True)",
        "dlog_total = -dshifted.sum(axis=-1, keepdims=True)",
    ): "dshifted is still a copy of dlog_probs here",
    (
        "cross_entropy", "backward_steps",
        "dexps = np.zeros_like(exps) + dtotal",
        "dexps = dtotal",
    ): "the zeros only give it its shape, and the next line broadcasts",
    (
        "cross_entropy", "backward_steps",
        "dexps = np.zeros_like(exps) + dtotal",
        "dexps = np.zeros_like(log_probs) + dtotal",
    ): "only the shape of exps is used here, and log_probs has the same",
    (
        "embedding", "backward",
        "dweight = np.zeros(shape, dtype=drows.dtype)",
        "dweight = -np.zeros(shape, dtype=drows.dtype)",
    ): "-0 is 0",
    (
        "embedding", "backward",
        "dweight = np.zeros(shape, dtype=drows.dtype)",
        "dweight = np.zeros(shape, dtype=drows.dtype) / 2",
    ): "0/2 is 0",
    (
        "embedding", "backward",
        "dweight = np.zeros(shape, dtype=drows.dtype)",
        "dweight = np.zeros(shape, dtype=np.ones_like(drows).dtype)",
    ): "only the dtype of drows is used here, and ones_like keeps it",
    (
        "layer_norm", "backward_steps",
        "dsquare = np.zeros_like(xhat) + dvar / xhat.shape[-1]",
        "dsquare = dvar / xhat.shape[-1]",
    ): "the zeros only give it its shape, and the next line broadcasts",
    (
        "layer_norm", "backward_steps",
        "dx = dcentered.copy()",
        "dx = dcentered",
    ): "dcentered is not read after dx is added to",
    (
        "layer_norm", "backward_steps",
        "dmean = -dcentered.sum(axis=-1, keepdims=True)",
        "dmean = -dx.sum(axis=-1, keepdims=True)",
    ): "dx is still a copy of dcentered here",
}  # fmt: skip
