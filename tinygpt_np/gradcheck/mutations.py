"""The planted bugs: common mistakes in a backward, made one at a time in its syntax tree.

General tools for mutation testing change operators and constants. They know nothing about `@`,
`.T`, axes, masks or saved values, which is where gradients go wrong. EXPRESSIONS and STATEMENTS
list the mistakes, `mutations` returns every version of a function with one of them, `sites` lists
the functions they are planted in, and EQUIVALENT lists the mutants that change no gradient.
"""

import ast
import copy
import inspect
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any, TypeGuard

from tinygpt_np import ops
from tinygpt_np.model import gpt

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
    "path dropped": "one of several paths of the gradient is forgotten, a whole statement",
    "saved swapped": "saved values are unpacked in the wrong order",
    "scatter": "only the last occurrence of a repeated token counts",
    "sign": "minus for plus",
    "stale value": "another array of the same shape, usually from the line before",
    "sum and mean": "sum for mean, mean for sum",
    "sum dropped": "broadcast in forward, not summed in backward",
    "term doubled": "a term is counted twice",
    "term dropped": "a term of an expression is forgotten",
    "transpose": "a transpose is missing, or one too many",
    "upstream ignored": "ones instead of the upstream gradient",
    "wrong name": "a gradient is stored under the name of another layer",
}
# Mistakes in an expression, by kind: a pattern and its wrong versions. A, B and C match any
# expression, X a name.
EXPRESSIONS: dict[str, dict[str, list[str]]] = {
    "A @ B": {"operands swapped": ["B @ A"]},
    "X @ A": {"transpose": ["X.mT @ A"]},
    "A @ X": {"transpose": ["A @ X.mT"]},
    "A.T": {"transpose": ["A"]},
    "A.mT": {"transpose": ["A"]},
    "A + B": {"term dropped": ["A", "B"], "term doubled": ["A + B + B"], "sign": ["A - B"]},
    "A - B": {
        "term dropped": ["A", "-B"],
        "term doubled": ["A - B - B"],
        "sign": ["A + B"],
        "operands swapped": ["B - A"],
    },
    "A * B": {"factor dropped": ["A", "B"], "factor doubled": ["A * B * B"]},
    "A / B": {
        "factor dropped": ["A"],
        "factor doubled": ["A / B / B"],
        "operands swapped": ["B / A"],
        "factor inverted": ["A * B"],
    },
    "A.shape[-1]": {"1/N": ["A.shape[0]"]},
    "count": {"1/N": ["log_probs.shape[0]"]},
    "A if B else C": {"condition": ["A", "C"]},
    "A.copy()": {"copy dropped": ["A"]},
    # The input has the shape of the output unless the layer changes the width.
    "A.backward(B, C)": {"call skipped": ["B"]},
    "np.exp(A)": {"call skipped": ["A"]},
    "np.full_like(A, B)": {"call skipped": ["A"]},
    "np.tri(A, dtype=B)": {"mask": ["np.tri(A, dtype=B, k=1)", "np.tri(A, dtype=B, k=-1)"]},
    "np.where(A, B, C)": {"mask": ["B", "np.where(A, C, B)"]},
    "reversed(A)": {"order": ["A"]},
} | {
    f"A.{method}(axis=B{rest})": {
        "sum and mean": [f"A.{other}(axis=B{rest})"],
        "axis": [f"A.{method}({new})" for new in (f"axis=0{rest}", f"axis=-1{rest}", rest[2:])],
        "keepdims": [f"A.{method}(axis=B)"],
        "sum dropped": ["A"],
    }
    for method, other in (("sum", "mean"), ("mean", "sum"))
    for rest in ("", ", keepdims=True")
}
STATEMENTS: dict[str, dict[str, list[str]]] = {
    "X += A": {
        "+= to =": ["X = A"],
        "path dropped": [""],
        "term doubled": ["X += A; X += A"],
        "sign": ["X -= A"],
    },
    "np.add.at(A, B, C)": {"scatter": ["A[B] += C", "A[B] = C"], "path dropped": [""]},
}
SWAPPED_NAMES = {
    ".ln_1": ".ln_2",
    ".ln_2": ".ln_1",
    ".mlp.c_proj": ".attn.c_proj",
    ".attn.c_proj": ".mlp.c_proj",
}
# The replacement of a node of the tree.
Replacement = ast.AST | list[ast.stmt]


@dataclass(frozen=True)
class Mutation:
    """A function with one mistake. before, after: the changed statements, as one line."""

    function: str
    kind: str
    line: int
    before: str
    after: str
    tree: ast.FunctionDef = field(repr=False, compare=False)


@cache
def mutations(source: str, name: str) -> list[Mutation]:
    """Return all mutations of the function or method called `name`, without duplicates."""
    tree = ast.parse(source)
    original = next(function for function in functions_in(tree) if function.name == name)
    scope, before = Scope(source, tree, original), ast.unparse(original)
    found: dict[str, Mutation] = {}
    for node in ast.walk(original):
        for kind, replacement in changes(node, scope):
            mutant = replaced(original, node, replacement)
            after = ast.unparse(mutant)
            if after != before and after not in found:
                line = getattr(node, "lineno", original.lineno)
                old, new = difference(before.splitlines(), after.splitlines())
                found[after] = Mutation(name, kind, line, old, new, mutant)
    return list(found.values())


def functions_in(tree: ast.Module) -> list[ast.FunctionDef]:
    """Return all functions and methods."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


class Scope:
    """The names of a function: the upstream gradient, and the shapes that comments state."""

    def __init__(self, source: str, tree: ast.Module, function: ast.FunctionDef) -> None:
        first = next(a.arg for a in function.args.args if a.arg != "self")
        self.upstream = first if first.startswith("d") else ""
        forward = function.name.removesuffix("_steps").replace("backward", "forward")
        source_lines = source.splitlines()
        # The shape of each name as a string, and its line; 0 for the names of forward.
        self.shapes: dict[str, str] = {}
        self.lines: dict[str, int] = {}
        for definition in (*(f for f in functions_in(tree) if f.name == forward), function):
            docstring = ast.get_docstring(definition) or ""
            stated = [
                (a.arg, re.search(rf"\b{a.arg} (\([^()]*\))", docstring), definition.lineno)
                for a in definition.args.args
            ]
            for node in (node for node in ast.walk(definition) if isinstance(node, ast.Assign)):
                names = ast.unparse(node.targets[0]).strip("()").split(", ")
                comment = source_lines[(node.end_lineno or 0) - 1].rpartition("# ")[2]
                shapes = list(re.finditer(r"(\([^()]*\))(?:, |$)", comment))
                if len(shapes) == len(names):
                    stated += [(*each, node.lineno) for each in zip(names, shapes, strict=True)]
            for name, shape, line in stated:
                if shape is not None and name not in self.shapes:
                    self.shapes[name] = shape.group(1)
                    self.lines[name] = line if definition is function else 0
        saved = {
            name.id
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and is_unpacking(node)
            for name in ast.walk(node.targets[0])
            if isinstance(name, ast.Name)
        }
        self.own = saved | {name for name, line in self.lines.items() if line}
        # Second names of the same value: dx = dshifted.
        self.aliases = {
            name: node.value.id
            for name, node in assignments(function)
            if isinstance(node.value, ast.Name)
        }

        # Gradients to which other paths are added after the first one, by their names.
        self.sums = {
            ast.unparse(node.target if isinstance(node, ast.AugAssign) else node.targets[0])
            for node in ast.walk(function)
            if isinstance(node, ast.AugAssign) or is_sum(node)
        }

    def value(self, name: str) -> str:
        """Return the first name of the value of this name."""
        while name in self.aliases:
            name = self.aliases[name]
        return name

    def alike(self, name: ast.Name) -> str | None:
        """Return the nearest value before this line that has the same shape."""
        known = [
            other
            for other in self.own & set(self.shapes)
            if self.shapes[other] == self.shapes.get(name.id)
            and self.lines[other] < name.lineno
            and self.value(other) != self.value(name.id)
            and other.startswith("d") == name.id.startswith("d")
        ]
        return max(known, key=lambda other: (self.lines[other], other), default=None)


def assignments(function: ast.FunctionDef) -> list[tuple[str, ast.Assign]]:
    """Return all assignments to a name."""
    return [
        (node.targets[0].id, node)
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    ]


def is_sum(node: ast.AST) -> TypeGuard[ast.Assign]:
    """Return whether a statement is of the form x = x + a."""
    match node:
        case ast.Assign([ast.Name(id=name)], ast.BinOp(ast.Name(id=first), ast.Add())):
            return name == first
        case _:
            return False


def is_unpacking(node: ast.Assign) -> bool:
    """Return whether a statement is of the form a, b, … = saved."""
    return isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Name)


def changes(node: ast.AST, scope: Scope) -> Iterator[tuple[str, Replacement]]:
    """Yield the mistakes that can be made at one node of the tree, each with its kind."""
    for pattern, mistakes in PATTERNS:
        found: dict[str, Any] = {}
        if matches(pattern, node, found):
            for kind, mistake in mistakes:
                yield kind, Fill(found).visit(copy.deepcopy(mistake)).body
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=operand) if ast.unparse(operand) != "1":
            # Not -1, which is an axis or an index.
            yield "sign", operand
        case ast.Name(ctx=ast.Load()):
            if node.id == scope.upstream:
                yield "upstream ignored", parsed(f"np.ones_like({node.id})").body
            if other := scope.alike(node):
                yield "stale value", ast.Name(other, ast.Load())
        case ast.Assign(targets=[ast.Tuple(elts=parts)]) if is_unpacking(node):
            for swapped in exchanged(parts):
                target = ast.Tuple(swapped, ast.Store())
                yield "saved swapped", ast.Assign([target], node.value)
        case ast.Assign(targets=[ast.Name(id=name)]) if name.startswith("d"):
            if not isinstance(node.value, ast.UnaryOp):
                negated = ast.UnaryOp(ast.USub(), node.value)
                yield "sign", ast.Assign(node.targets, negated)
                half = ast.BinOp(node.value, ast.Div(), ast.Constant(2))
                yield "factor 1/2", ast.Assign(node.targets, half)
            if is_sum(node):
                yield "path dropped", []
            elif name in scope.sums:
                zeros = ast.Call(parsed("np.zeros_like").body, [node.value], [])
                yield "path dropped", ast.Assign(node.targets, zeros)
        case ast.Return(value=ast.Tuple(elts=parts)):
            for swapped in exchanged(parts):
                yield "order", ast.Return(ast.Tuple(swapped, ast.Load()))
        case ast.Call(func=ast.Attribute(attr="concatenate"), args=[ast.List(elts=parts)]):
            for swapped in exchanged(parts):
                yield "order", ast.Call(node.func, [ast.List(swapped, ast.Load())], node.keywords)
        case ast.Constant(value=str(text)) if text in SWAPPED_NAMES:
            yield "wrong name", ast.Constant(SWAPPED_NAMES[text])
        case _:
            pass


def exchanged(parts: list[ast.expr]) -> Iterator[list[ast.expr]]:
    """Yield the list with two neighbours exchanged, for each pair of neighbours."""
    for i in range(len(parts) - 1):
        yield [*parts[:i], parts[i + 1], parts[i], *parts[i + 2 :]]


# Patterns


def parsed(text: str, mode: str = "eval") -> Any:
    """Parse an expression, or with mode "exec" statements, without its places in the text."""
    tree = ast.parse(text, mode=mode)
    for node in ast.walk(tree):
        for attribute in node._attributes:
            vars(node).pop(attribute, None)
    return tree


def parsed_table(table: dict[str, dict[str, list[str]]], mode: str) -> Iterator[tuple[Any, Any]]:
    """Yield each pattern of a table, and its mistakes with their kinds."""
    for text, kinds in table.items():
        pattern = parsed(text, mode).body
        mistakes = [(kind, parsed(new, mode)) for kind in kinds for new in kinds[kind]]
        yield pattern[0] if mode == "exec" else pattern, mistakes


PATTERNS = [*parsed_table(EXPRESSIONS, "eval"), *parsed_table(STATEMENTS, "exec")]


def matches(pattern: Any, node: Any, found: dict[str, Any]) -> bool:
    """Return whether a node has the form of a pattern; record what its letters stand for."""
    match pattern:
        case ast.Name(id="A" | "B" | "C" | "X" as letter):
            found[letter] = node
            return letter != "X" or isinstance(node, ast.Name)
        case ast.AST():
            return type(pattern) is type(node) and all(
                matches(getattr(pattern, name), getattr(node, name), found)
                for name in pattern._fields
            )
        case [first, *rest]:
            return bool(node) and matches(first, node[0], found) and matches(rest, node[1:], found)
        case _:
            return pattern == node


class Fill(ast.NodeTransformer):
    """Replaces letters by what they stand for."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.found = found

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """Replace a letter; keep a name."""
        return self.found.get(node.id, node)


def replaced(function: ast.FunctionDef, node: ast.AST, replacement: Replacement) -> ast.FunctionDef:
    """Return a copy of the function with one of its nodes replaced."""
    copies: dict[int, Any] = {}
    mutant = copy.deepcopy(function, copies)
    target = copies[id(node)]
    fresh = copy.deepcopy(replacement)
    for new in fresh if isinstance(fresh, list) else [fresh]:
        ast.copy_location(new, target)

    class Replace(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST | list[ast.stmt]:
            return fresh if node is target else self.generic_visit(node)

    Replace().visit(mutant)
    return ast.fix_missing_locations(mutant)


def difference(before: list[str], after: list[str]) -> tuple[str, str]:
    """Return the statements in which two functions differ, before and after."""
    shorter, doubled = min(len(before), len(after)), len(after) > len(before)
    start = next((i for i in range(shorter) if before[i] != after[i]), shorter)
    start -= doubled  # If a line was doubled, both lines are shown.
    rest = shorter - start - doubled
    end = next((i for i in range(rest) if before[~i] != after[~i]), rest)
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    return "; ".join(map(str.strip, old)), "; ".join(map(str.strip, new)) or "(nothing)"


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
        source = inspect.getsource(self.module)
        special = [OTHER_GELU[self.operation]] if self.operation in OTHER_GELU else []
        return mutations(source, self.function) + special

    def compiled(self, mutation: Mutation) -> Callable[..., Any]:
        """Compile a mutant with the globals of its module."""
        names = dict(vars(self.module))
        tree = ast.Module([mutation.tree], [])
        exec(compile(tree, f"<mutant of {self.operation}>", "exec"), names)
        return names[self.function]

    @contextmanager
    def planted(self, mutant: Callable[..., Any]) -> Generator[None]:
        """Replace the function that all code calls by a mutant in the context."""
        # Nothing calls backward_steps, so its mutants replace backward.
        name = self.function.removesuffix("_steps")
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
    methods = ("backward", "block_backward", "heads_backward")
    found += [Site("gpt", gpt.GPT, gpt, name) for name in methods]
    return [*found, Site("gpt", gpt.Gradients, gpt, "keep")]


# Every operation with planted bugs; "gpt", which takes longest, comes first.
OPERATIONS = tuple(dict.fromkeys(site.operation for site in reversed(sites())))


# The mutants that change no gradient: the statement before and after, and the reason; every other
# mutant must be detected.
HIDDEN = "exp of a hidden score is 0, so the backward of softmax gives exactly 0 there"
COUNTED = "counted[:, None]"
SHAPE_ONLY = "the zeros only give it its shape, and the next line broadcasts"
PASSED = "drectified is 0 wherever relu gives 0"
UNCHANGED: dict[tuple[str, str], list[tuple[str, str, str]]] = {
    ("attention", "backward"): [
        ("batch, n_head, time, head_size = q.shape", "batch, n_head, time, head_size = v.shape",
         "queries and values have the same shape"),
        ("visible = np.tri(time, dtype=bool)", "visible = np.tri(time, dtype=bool, k=1)", HIDDEN),
        ("dscores = np.where(visible, dmasked, 0)", "dscores = dmasked", HIDDEN),
        ("dproducts = dscores * scale", "dproducts = dmasked * scale", HIDDEN),
    ],
    ("cross_entropy", "backward"): [
        (f"dlogits = (probs - chosen) * {COUNTED} * (float(dloss) / count)",
         f"dlogits = (probs - chosen) * {COUNTED} * {COUNTED} * (float(dloss) / count)",
         "counted is 0 or 1, and so is its square"),
    ],
    ("cross_entropy", "backward_steps"): [
        ("dlog_probs = dpicked * chosen", "dlog_probs = dpicked * chosen * chosen",
         "chosen is 0 or 1, and so is its square"),
        ("dshifted = dlog_probs.copy()", "dshifted = dlog_probs",
         "dlog_probs is not read after dshifted is added to"),
        ("dlog_total = -dlog_probs.sum(axis=-1, keepdims=True)",
         "dlog_total = -dshifted.sum(axis=-1, keepdims=True)",
         "dshifted is still a copy of dlog_probs here"),
        ("dexps = np.zeros_like(exps) + dtotal", "dexps = dtotal", SHAPE_ONLY),
        ("dexps = np.zeros_like(exps) + dtotal", "dexps = np.zeros_like(log_probs) + dtotal",
         "only the shape of exps is used here, and log_probs has the same"),
    ],
    ("embedding", "backward"): [
        ("dweight = np.zeros(shape, dtype=drows.dtype)",
         "dweight = -np.zeros(shape, dtype=drows.dtype)", "-0 is 0"),
        ("dweight = np.zeros(shape, dtype=drows.dtype)",
         "dweight = np.zeros(shape, dtype=drows.dtype) / 2", "0/2 is 0"),
        ("dweight = np.zeros(shape, dtype=drows.dtype)",
         "dweight = np.zeros(shape, dtype=np.ones_like(drows).dtype)",
         "only the dtype of drows is used here, and ones_like keeps it"),
    ],
    ("layer_norm", "backward_steps"): [
        ("dsquare = np.zeros_like(xhat) + dvar / xhat.shape[-1]", "dsquare = dvar / xhat.shape[-1]",
         SHAPE_ONLY),
        ("dx = dcentered.copy()", "dx = dcentered", "dcentered is not read after dx is added to"),
        ("dmean = -dcentered.sum(axis=-1, keepdims=True)",
         "dmean = -dx.sum(axis=-1, keepdims=True)", "dx is still a copy of dcentered here"),
    ],
    ("relu_squared", "backward_steps"): [
        ("dx = relu.backward(drectified, saved_relu)", "dx = drectified", PASSED),
        ("return dx", "return drectified", PASSED),
    ],
    ("rms_norm", "backward_steps"): [
        ("dsquare = np.zeros_like(xhat) + dmean_square / xhat.shape[-1]",
         "dsquare = dmean_square / xhat.shape[-1]", SHAPE_ONLY),
    ],
}  # fmt: skip
# The reason by operation, function, and the statement before and after.
EQUIVALENT = {
    (operation, function, before, after): reason
    for (operation, function), mutants in UNCHANGED.items()
    for before, after, reason in mutants
}
