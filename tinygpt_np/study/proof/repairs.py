"""Find the mistake in a wrong line: the smallest change of the line that makes it right.

Changes are tried in the order of their size: first a changed sign, operator, name or axis, then an
operand that is added, then one that is made of two values. A change is evaluated: the line is run
with it, and what it sets must be the expected gradient to about nine digits. If the smallest
changes that pass correct different mistakes, it is unknown which one was made; then two mistakes
are both reported, and more are not.
"""

import ast
import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np

from tinygpt_np.gradcheck.mutations import Fill, matches, parsed, parsed_table
from tinygpt_np.storage.parameters import Tensors
from tinygpt_np.study.source.paths import Namespace
from tinygpt_np.study.source.paths import parsed as parsed_path
from tinygpt_np.study.source.steps import Step, compiled
from tinygpt_np.study.source.trace import copied

# With larger arrays, no operand of two values is tried; with more arrays, the latest ones are.
MAX_ELEMENTS, MAX_NAMES = 10_000, 24
# A change inserts an operand under this name, which no source can use.
OPERAND = "operand of the change"
# The result of a return statement has this name.
RESULT = "the result"
NUMBERS = np.ndarray | np.generic | int | float
# Corrections of mistakes in an expression, by pattern; A, B and C match any expression.
CORRECTIONS: dict[str, dict[str, list[str]]] = {
    "A @ B": {"the operands are swapped": ["B @ A"]},
    "A.T": {"a transpose too many": ["A"]},
    "A.mT": {"a transpose too many": ["A"]},
    "A + B": {"a term too many": ["A", "B"], "the sign is wrong": ["A - B", "B - A"]},
    "A - B": {"a term too many": ["A", "-B"], "the sign is wrong": ["A + B"]},
    "A * B": {"a factor too many": ["A", "B"], "multiplied, not divided": ["A / B", "B / A"]},
    "A / B": {
        "a factor too many": ["A"],
        "divided, not multiplied": ["A * B"],
        "the operands are swapped": ["B / A"],
    },
    "-A": {"the sign is wrong": ["A"]},
    "X(A)": {"a call too many": ["A"]},
    "np.ones_like(A)": {"the upstream gradient is ignored": ["A"]},
    "np.where(A, B, C)": {"the mask is wrong": ["np.where(A, C, B)"]},
    "np.tri(A, dtype=B, k=C)": {"the mask is wrong": ["np.tri(A, dtype=B)"]},
    "A if B else C": {"the condition is wrong": ["C if B else A"]},
}
# Operations that may be missing around an expression A.
WRAPPERS = {
    "A.T": "a transpose is missing",
    "A.mT": "a transpose is missing",
    "np.exp(A)": "a call is missing",
}
# The axes that a sum or mean may need, with those of rows, of sequences and of images.
AXES = ("-1", "0", "1", "2", "(0, 1)", "(0, 1, 2)", "(0, 2, 3)")
# Operations with an operand B that may be missing next to an expression A.
OPERATIONS = {
    "A * B": ("a factor is missing", "multiply {0} by {1}"),
    "A / B": ("a factor is missing", "divide {0} by {1}"),
    "A + B": ("a term is missing", "add {1} to {0}"),
    "A - B": ("a term is missing", "subtract {1} from {0}"),
}
# The derivatives of common functions, in terms of their argument or their value A.
DERIVATIVES = {
    "(1 - A * A)": ", the derivative of tanh",
    "A * (1 - A)": ", the derivative of a sigmoid",
    "(A > 0)": ", the mask of a ReLU",
    "np.exp(A)": "",
    "np.exp(-A * A)": "",
}
# Mistakes that a missing or extra operand may explain as well.
REPLACED = ("the wrong value", "the wrong number")
PATTERNS = [*parsed_table(CORRECTIONS, "eval")]


@dataclass(frozen=True)
class Operand:
    """A value that a change may insert, its source, and perhaps what it is."""

    text: str
    value: Any
    about: str = ""


@dataclass(frozen=True)
class Change:
    """A changed statement. mistake: what it corrects. how: the change in words.

    operands: the values that OPERAND in the statement may have; {1} in `how` is the source of it.
    """

    mistake: str
    how: str
    node: ast.stmt
    operands: Sequence[Operand] = ()


@dataclass(frozen=True)
class WrongLine:
    """A line of a backward that is wrong, and what it should do.

    steps: what is run again; the last of them sets what is_right judges. before: the namespace
    before each step that may have the mistake, by its index; the most likely comes first. module:
    what is in a namespace and never changes. numbers: what a factor may be, such as a length.
    functions: the names of those that the forward calls with one argument.
    """

    steps: Sequence[Step]
    before: Mapping[int, Namespace]
    module: Namespace
    is_right: Callable[[Namespace], bool]
    numbers: Sequence[Operand] = ()
    functions: Sequence[str] = ()

    @cached_property
    def suspects(self) -> list["Suspect"]:
        """The steps that may have the mistake."""
        return [Suspect(self, index) for index in self.before]

    def passing(self, suspect: "Suspect", change: Change) -> Iterator[str]:
        """Yield the change in words, with each of its operands that makes the line right."""
        changed = compiled(change.node)
        for operand in change.operands or (Operand("", None),):
            namespace = suspect.start() | {OPERAND: operand.value}
            try:
                with np.errstate(all="ignore"):
                    for step in self.steps[suspect.index :]:
                        namespace.update(step.binds)
                        # A loop runs a statement several times.
                        code = changed if step.statement.node is suspect.node else step.code
                        namespace[RESULT] = eval(code, namespace)
            except Exception:
                continue
            if self.is_right(namespace):
                yield change.how.replace("{1}", f"`{operand.text}`{operand.about}")

    @cached_property
    def changes_containers(self) -> bool:
        """Whether a step stores something in an object, a dict or a list."""
        sets = (name for step in self.steps for name in step.statement.sets)
        return any(parsed_path(name)[1] for name in sets)


def mistakes(wrong: WrongLine) -> dict[str, str]:
    """Return what the smallest changes correct that make a line right, each with such a change.

    If the line is right as it is, because something else is wrong, there is none.
    """
    found = dict[str, str]()
    if any([*wrong.passing(each, Change("", "", each.node))] for each in wrong.suspects):
        return found
    for changes in (Suspect.small_changes, Suspect.insertions, Suspect.long_insertions):
        for suspect in wrong.suspects:
            for change in changes(suspect):
                # A replacement of a value can also be added to it, as a difference.
                if found and change.mistake == "a term is missing":
                    continue
                for how in wrong.passing(suspect, change):
                    found.setdefault(change.mistake, how)
        if not {*found} <= {*REPLACED} or (found and changes is Suspect.insertions):
            break
    return found


class Suspect:
    """A step that may have a mistake, and the ways to change it."""

    def __init__(self, wrong: WrongLine, index: int) -> None:
        step, module = wrong.steps[index], wrong.module
        self.wrong, self.index, self.node = wrong, index, step.statement.node
        self.namespace = {**wrong.before[index], **step.binds}
        # Values that the steps may change in place.
        own: Namespace = {n: v for n, v in self.namespace.items() if v is not module.get(n, self)}
        self.containers = own if wrong.changes_containers else {}
        self.own: Tensors = {n: v for n, v in own.items() if isinstance(v, np.ndarray)}
        # The latest name first: it is the most likely of those with the same value.
        values = {n: v for n, v in reversed(self.namespace.items()) if is_number(v)}
        self.arrays = [Operand(n, v) for n, v in values.items() if np.ndim(v)]
        self.scalars = [Operand(n, v) for n, v in values.items() if not np.ndim(v)]
        mentioned = step.statement.mentions
        lengths = [
            Operand(f"{array.text}.shape[{axis}]", length)
            for array in sorted(self.arrays, key=lambda array: array.text not in mentioned)
            for axis, length in enumerate(array.value.shape)
        ]
        # Numbers that are equal explain a factor equally well.
        texts: dict[float, list[str]] = {}
        for each in (*wrong.numbers, *self.scalars, *lengths, Operand("2", 2)):
            texts.setdefault(float(each.value), []).append(each.text)
        self.numbers = [
            Operand("` or `".join([*dict.fromkeys(t)][:2]), v) for v, t in texts.items()
        ]

    def start(self) -> Namespace:
        """Return a namespace that the step and those after it may change."""
        if self.containers:
            return self.namespace | copied(self.containers)
        return self.namespace | {name: array.copy() for name, array in self.own.items()}

    @cached_property
    def statements(self) -> list[ast.stmt]:
        """The simple statements: one, or those in a loop that is a single step."""
        every = (part for part in ast.walk(self.node) if isinstance(part, ast.stmt))
        return [statement for statement in every if not hasattr(statement, "body")]

    @cached_property
    def expressions(self) -> list[tuple[ast.expr, Any]]:
        """The expressions of the statement, the largest first, with their values or None."""
        values = (getattr(statement, "value", None) for statement in self.statements)
        found, todo = list[tuple[ast.expr, Any]](), [v for v in values if isinstance(v, ast.expr)]
        for node in todo:
            try:
                with np.errstate(all="ignore"):
                    result = eval(compiled(node), dict(self.namespace))
            except Exception:
                result = None
            found.append((node, result if is_number(result) else None))
            todo += operands_of(node)
        return found

    # Small changes

    def small_changes(self) -> Iterator[Change]:
        """Yield the changes of a sign, an operator, a name, an axis or the order of a tuple."""
        for statement in self.statements:
            for mistake, new in statement_changes(statement, self.namespace):
                new = ast.fix_missing_locations(ast.copy_location(new, statement))
                how = substitution(statement, new)
                yield Change(mistake, how, copy.deepcopy(self.node, {id(statement): new}))
        for node, value in self.expressions:
            unused = [name for name in names_of(node) if self.namespace.get(name, 0) is None]
            for mistake, new in (*corrections(node), *reductions(node)):
                if unused and mistake == "a factor too many":
                    text = f"`{unused[0]}` is None here"
                    yield Change("a condition is missing", text, self.replaced(node, new))
                else:
                    yield self.substituted(mistake, node, new)
            if value is not None:
                yield from self.replacements(node, value)
        for node, value in self.expressions:
            if value is not None:
                new = self.replaced(node, filled("-A", A=node))
                yield Change("the sign is wrong", f"negate {self.name(node)}", new)

    def replacements(self, node: ast.expr, value: Any) -> Iterator[Change]:
        """Yield the changes of a name to another one, and of a number to another number."""
        is_name, is_array = isinstance(node, ast.Name), np.ndim(value) > 0
        is_number = isinstance(node, ast.Subscript | ast.Attribute) or is_call_of_len(node)
        if is_name or (is_number and not is_array):
            mistake = "the wrong value" if is_name else "the wrong number"
            new = self.replaced(node, ast.Name(OPERAND, ast.Load()))
            how = f"write {{1}} for `{ast.unparse(node)}`"
            others = self.arrays if is_array else self.numbers
            yield Change(mistake, how, new, others)

    # Insertions

    @cached_property
    def values(self) -> list[tuple[ast.expr, Any]]:
        """The expressions that have a value and are no constants."""
        pairs = ((n, v) for n, v in self.expressions if not isinstance(n, ast.Constant))
        return [(node, value) for node, value in pairs if value is not None]

    def insertions(self) -> Iterator[Change]:
        """Yield the changes that add an operand, a transpose, a sum or a call."""
        for node, value in self.values:
            for wrapper, mistake in (*WRAPPERS.items(), *self.calls):
                yield self.substituted(mistake, node, filled(wrapper, A=node))
            axes = range(np.ndim(value))
            rows = [axes[:-1]] if len(axes) > 2 else []
            for axis, end in itertools.product([*axes, *map(tuple, rows)], ("", ", keepdims=True")):
                for kind in ("sum", "mean"):
                    new = filled(f"A.{kind}(axis={axis}{end})", A=node)
                    yield self.substituted(f"a {kind} is missing", node, new)
            yield from self.with_operand(node, [*self.arrays, *self.numbers, *self.unary], "*/")
        # A factor of 2 is missing rather than a term that equals the one that is there.
        for node, _ in self.values:
            yield from self.with_operand(node, [*self.arrays, Operand("1", 1)], "+-")

    def long_insertions(self) -> Iterator[Change]:
        """Yield the changes that add an operand made of two values."""
        nodes = [node for node, value in self.values if np.size(value) <= MAX_ELEMENTS]
        for node in nodes:
            # x * (y / x) replaces x.
            name = ast.unparse(node)
            factors = [each for each in self.binary if name not in each.text.split(" / ")]
            yield from self.with_operand(node, [*factors, *self.differences], "*/")
        for node in nodes:
            yield from self.with_operand(node, [*self.binary, *self.projections], "+-")

    @cached_property
    def calls(self) -> list[tuple[str, str]]:
        """The calls of the forward's functions, and of a module's backward with saved values."""
        owners = [n for n, v in self.namespace.items() if isinstance(v, ModuleType)]
        owners = [n for n in owners if hasattr(self.namespace[n], "backward")]
        saved = [n for n, v in self.namespace.items() if isinstance(v, tuple)]
        pairs = itertools.product(owners, saved)
        wrappers = [f"{owner}.backward(A, {name})" for owner, name in pairs]
        wrappers += [f"{name}(A)" for name in self.wrong.functions]
        return [(wrapper, "a call is missing") for wrapper in wrappers]

    @cached_property
    def unary(self) -> list[Operand]:
        """The vectors as columns, and the derivatives of common functions at each value."""
        columns = [f"{a.text}[:, None]" for a in self.arrays if np.ndim(a.value) == 1]
        found = [*self.evaluated(columns)]
        for derivative, about in DERIVATIVES.items():
            texts = [derivative.replace("A", array.text) for array in self.arrays]
            found += (replace(each, about=about) for each in self.evaluated(texts))
        return found

    @cached_property
    def latest(self) -> list[Operand]:
        """The arrays of which pairs are tried."""
        return self.arrays[:MAX_NAMES]

    @cached_property
    def binary(self) -> list[Operand]:
        """The products and quotients of two values."""
        names = [*(each.text for each in (*self.latest, *self.scalars)), "2"]
        products = (f"{a} * {b}" for a, b in itertools.combinations_with_replacement(names, 2))
        quotients = (f"{a} / {b}" for a, b in itertools.permutations(names, 2))
        return [*self.evaluated((*products, *quotients))]

    @cached_property
    def differences(self) -> list[Operand]:
        """The differences of two values, and the numbers with the other sign."""
        names = [each.text for each in self.latest]
        negated = [f"-{each.text}" for each in self.scalars]
        pairs = itertools.permutations(names, 2)
        return [*self.evaluated((*negated, *(f"({a} - {b})" for a, b in pairs)))]

    @cached_property
    def projections(self) -> list[Operand]:
        """The means of a value, and a value times its product with another one, or its mean."""
        pairs = itertools.permutations((each.text for each in self.latest), 2)
        texts = [f"{a} * {a} * {b}" for a, b in pairs]
        for a in self.latest:
            for axis in (axis for axis, length in enumerate(a.value.shape) if length > 1):
                end = f"mean(axis={axis}, keepdims=True)"
                same = [b.text for b in self.latest if np.shape(b.value) == np.shape(a.value)]
                texts += [f"{a.text}.{end}", *(f"{a.text} * ({a.text} * {b}).{end}" for b in same)]
        return [*self.evaluated(texts)]

    def evaluated(self, texts: Iterable[str]) -> Iterator[Operand]:
        """Yield the expressions that have a value."""
        for text in texts:
            try:
                with np.errstate(all="ignore"):
                    yield Operand(text, eval(text, dict(self.namespace)))
            except Exception:
                continue

    # Changed statements

    def with_operand(
        self, node: ast.expr, operands: Sequence[Operand], operators: str
    ) -> Iterator[Change]:
        """Yield the changes that join an expression and one of some operands."""
        for operation, (mistake, how) in OPERATIONS.items():
            if operation[2] in operators and operands:
                new = filled(operation, A=node, B=ast.Name(OPERAND, ast.Load()))
                how = how.replace("{0}", self.name(node))
                yield Change(mistake, how, self.replaced(node, new), operands)

    def name(self, node: ast.expr) -> str:
        """Return an expression, or the name that is set if it is all of the right-hand side."""
        match self.node:
            case ast.Assign(targets=[ast.Name() as target], value=value) if value is node:
                return f"`{ast.unparse(target)}`"
            case _:
                return f"`{ast.unparse(node)}`"

    def substituted(self, mistake: str, node: ast.expr, new: ast.expr) -> Change:
        """Return the change of an expression."""
        return Change(mistake, substitution(node, new), self.replaced(node, new))

    def replaced(self, node: ast.expr, new: ast.expr) -> ast.stmt:
        """Return a copy of the statement with one of its expressions replaced."""
        # deepcopy takes the memo's entry under the id of a node for the copy of the node.
        return copy.deepcopy(self.node, {id(node): new})


def statement_changes(node: ast.stmt, values: Namespace) -> Iterator[tuple[str, ast.stmt]]:
    """Yield the mistakes that a statement of another kind corrects, with that statement."""
    match node:
        case ast.AugAssign(target=ast.Name(), op=ast.Add() | ast.Sub() as op, value=value):
            other = ast.Sub() if isinstance(op, ast.Add) else ast.Add()
            yield "the sign is wrong", ast.AugAssign(node.target, other, value)
            yield "counted twice", ast.Pass()
        case ast.Assign(targets=[ast.Tuple(elts=elements)], value=value):
            for swapped in exchanged(elements):
                new = ast.Assign([ast.Tuple(swapped, ast.Store())], value)
                yield "unpacked in the wrong order", new
        case ast.Assign(targets=[ast.Name() | ast.Subscript() as target], value=value):
            yield "not accumulated", ast.AugAssign(target, ast.Add(), value)
        case _:
            pass
    match node:
        case (
            ast.AugAssign(target=ast.Subscript(value=array, slice=index), value=value)
            | ast.Assign(targets=[ast.Subscript(value=array, slice=index)], value=value)
        ):
            names = (part.id for part in ast.walk(index) if isinstance(part, ast.Name))
            if any(np.ndim(values.get(name, 0)) for name in names):
                call = filled("np.add.at(A, B, C)", A=array, B=index, C=value)
                yield "repeated indices are lost", ast.Expr(call)
        case _:
            pass


def corrections(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """Yield the mistakes that another operator or order corrects, with the new expression."""
    for pattern, mistakes in PATTERNS:
        found: dict[str, Any] = {}
        if matches(pattern, node, found):
            for mistake, new in mistakes:
                yield mistake, Fill(found).visit(copy.deepcopy(new)).body
    if isinstance(node, ast.Tuple | ast.List):
        for elements in exchanged(node.elts):
            yield "the order is wrong", type(node)(elements, ast.Load())


def reductions(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """Yield the mistakes that another axis, or a mean for a sum, corrects, with the new call."""
    match node:
        case ast.Call(func=ast.Attribute(value=owner, attr="sum" | "mean" as kind), args=args):
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        case _:
            return
    if ast.unparse(owner) == "np":
        owner, *args = args
    if args:
        keywords["axis"] = args[0]

    def call(kind: str, axis: ast.expr | None, keepdims: bool) -> ast.expr:
        parts = [ast.keyword("axis", axis)] if axis else []
        parts += [ast.keyword("keepdims", ast.Constant(True))] if keepdims else []
        return ast.Call(ast.Attribute(owner, kind, ast.Load()), [], parts)

    axis, keepdims = keywords.get("axis"), "keepdims" in keywords
    other = "mean" if kind == "sum" else "sum"
    yield f"a {kind}, not a {other}", call(other, axis, keepdims)
    yield f"a {kind} too many", owner
    yield f"keepdims is {'set' if keepdims else 'missing'}", call(kind, axis, not keepdims)
    for new in (None, *(parsed(text).body for text in AXES)):
        yield "the wrong axis", call(kind, new, keepdims)


def operands_of(node: ast.expr) -> Iterator[ast.expr]:
    """Yield the operands of an expression; not an index, axis, comparison or called function."""
    match node:
        case ast.Call(func=func, args=args, keywords=keywords):
            yield from [func.value] if isinstance(func, ast.Attribute) else []
            yield from args
            yield from (k.value for k in keywords if k.arg not in ("axis", "keepdims", "dtype"))
        case ast.Subscript(value=value):
            yield value
        case ast.Compare() | ast.Attribute(attr="shape" | "dtype" | "size"):
            pass
        case _:
            yield from (part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr))


def is_call_of_len(node: ast.expr) -> bool:
    """Return whether an expression is len(…)."""
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "len"


def names_of(node: ast.expr) -> list[str]:
    """Return the names that are operands of an expression."""
    return [part.id for part in operands_of(node) if isinstance(part, ast.Name)]


def exchanged(elements: Sequence[ast.expr]) -> Iterator[list[ast.expr]]:
    """Yield a list with two of its elements exchanged, for each pair of them."""
    for i, j in itertools.combinations(range(len(elements)), 2):
        swapped = [*elements]
        swapped[i], swapped[j] = swapped[j], swapped[i]
        yield swapped


def filled(text: str, **letters: ast.expr) -> ast.expr:
    """Return an expression with its letters replaced."""
    return Fill(letters).visit(parsed(text)).body


def substitution(node: ast.AST, new: ast.AST) -> str:
    """Return in words what has to be written instead, or left out."""
    gone = ast.Name("")
    match node:
        case ast.BinOp(left=left, op=op, right=right) if new is left:
            return f"leave out `{ast.unparse(ast.BinOp(gone, op, right)).strip()}`"
        case ast.BinOp(left=left, op=op, right=right) if new is right:
            return f"leave out `{ast.unparse(ast.BinOp(left, op, gone)).strip()}`"
        case ast.UnaryOp(operand=operand) if new is operand:
            return "leave out the minus sign"
        case ast.stmt() if isinstance(new, ast.Pass):
            return f"leave out this `{ast.unparse(node)}`"
        case _:
            return f"write `{ast.unparse(new)}` for `{ast.unparse(node)}`"


def is_number(value: Any) -> bool:
    """Return whether a value is an array or a number."""
    return isinstance(value, NUMBERS) and np.asarray(value).dtype.kind in "biuf"
