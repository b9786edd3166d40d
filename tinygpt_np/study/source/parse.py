"""Parse a function: its statements, the lines quoted in its comments and the shapes they state."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

Def = ast.FunctionDef


class StudyError(ValueError):
    """Raised if a target cannot be studied; the message says what was expected and found."""


@dataclass(frozen=True)
class Statement:
    """One statement of a function.

    text: the source on one line, without its comment. shape: the shape stated by the comment, or
    "". changes: the names whose values it may change in place.
    """

    node: ast.stmt
    text: str
    shape: str
    changes: tuple[str, ...] = ()

    @property
    def line(self) -> int:
        """The line number in the file."""
        return self.node.lineno

    @cached_property
    def sets(self) -> tuple[str, ...]:
        """The names that it assigns, including those in loops and conditions, or changes."""
        parts = [*ast.walk(self.node)]
        loops = [part.target for part in parts if isinstance(part, ast.comprehension)]
        # The variable of a comprehension is local to the comprehension.
        local = {id(part) for target in loops for part in ast.walk(target)}
        names = [p for p in parts if isinstance(p, ast.Name) and isinstance(p.ctx, ast.Store)]
        stored = [name.id for name in names if id(name) not in local]
        return tuple(dict.fromkeys([*stored, *self.changes]))

    @cached_property
    def mentions(self) -> frozenset[str]:
        """All names that it reads, for any purpose."""
        names = (part for part in ast.walk(self.node) if isinstance(part, ast.Name))
        return frozenset({n.id for n in names if isinstance(n.ctx, ast.Load)} | {*self.changes})

    @cached_property
    def reads(self) -> frozenset[str]:
        """The names whose values affect the values that it sets."""
        if isinstance(self.node, ast.Assign | ast.AnnAssign | ast.AugAssign) and self.node.value:
            return frozenset(differentiable_reads(self.node.value) | {*self.changes})
        return self.mentions


def names_in(node: ast.AST) -> list[str]:
    """Return all names in a tree, in the order of ast.walk."""
    return [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]


def names_changed(node: ast.stmt) -> Iterator[str]:
    """Yield the names whose values a statement may change in place.

    These are x in `x += …`, `x[…] = …` and `out=x`, and the object or the first argument of a call
    whose result is discarded.
    """
    for part in ast.walk(node):
        match part:
            case (
                ast.AugAssign(target=ast.Name(id=name))
                | ast.Subscript(value=ast.Name(id=name), ctx=ast.Store())
                | ast.keyword(arg="out", value=ast.Name(id=name))
            ):
                yield name
            case ast.Expr(value=ast.Call(func=func, args=args)):
                yield from (first.id for first in args[:1] if isinstance(first, ast.Name))
                if isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name):
                    yield func.value.id
            case _:
                pass


def differentiable_reads(node: ast.AST) -> set[str]:
    """Return the names through which a gradient may flow into an expression.

    A name that is only compared or asked for its shape does not count, and neither does the
    argument of np.real: its result is treated as a constant, such as the largest logit.
    """
    match node:
        case (
            ast.Attribute(attr="shape" | "dtype" | "ndim" | "size")
            | ast.Compare()
            | ast.Call(func=ast.Attribute(attr="real"))
        ):
            return set()
        case ast.Name():
            return {node.id}
        case ast.IfExp():
            parts = [node.body, node.orelse]
        case _:
            parts = [p for p in ast.iter_child_nodes(node) if isinstance(p, ast.expr | ast.keyword)]
    return {name for part in parts for name in differentiable_reads(part)}


@dataclass(frozen=True)
class Function:
    """A function in a source file, with all lines of the file and the file's displayed name."""

    node: Def
    lines: tuple[str, ...]
    file: str

    @property
    def name(self) -> str:
        """The name of the function, without its class."""
        return self.node.name

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of all arguments."""
        args = self.node.args
        return tuple(arg.arg for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs))

    @property
    def upstream(self) -> str:
        """The argument of a backward that is the upstream gradient."""
        return next(name for name in self.arguments if name != "self")

    @property
    def signature(self) -> str:
        """The name with the names of the arguments, as in a definition."""
        return f"def {self.name}({', '.join(self.arguments)})"

    @cached_property
    def statements(self) -> tuple[Statement, ...]:
        """The body without docstring and return."""
        body = self.node.body[bool(ast.get_docstring(self.node)) : -1]
        return tuple(self.statement(node) for node in body)

    @property
    def returned(self) -> Statement:
        """The return statement, which is the last statement."""
        return self.statement(self.node.body[-1])

    @property
    def result(self) -> ast.expr:
        """The returned expression."""
        last = self.node.body[-1]
        assert isinstance(last, ast.Return)
        assert last.value is not None
        return last.value

    def statement(self, node: ast.stmt) -> Statement:
        """Return a statement of this function with the shape stated at the end of its last line."""
        last = self.lines[(node.end_lineno or node.lineno) - 1]
        comment = re.search(r"#\s*(\(.*\))\s*$", last)
        shape = comment.group(1) if comment else ""
        return Statement(node, self.text(node), shape, tuple(dict.fromkeys(names_changed(node))))

    def text(self, node: ast.stmt) -> str:
        """Return the source of a statement on one line; for a compound statement, its header."""
        if isinstance(node, ast.For | ast.While | ast.If | ast.With):
            head = ast.unparse(node).splitlines()[0]
            return f"{head} …"
        # Columns count bytes. (ast.get_source_segment would split the whole file on every call.)
        raw = [line.encode() for line in self.lines[node.lineno - 1 : node.end_lineno]]
        raw[-1] = raw[-1][: node.end_col_offset]
        raw[0] = raw[0][node.col_offset :]
        text = " ".join(re.sub(r"#.*", "", line.decode()).strip() for line in raw).strip()
        try:
            is_source = ast.dump(ast.Module([node], [])) == ast.dump(ast.parse(text))
        except SyntaxError:
            is_source = False
        # A planted bug is in the tree only, not in the source.
        return text if is_source else ast.unparse(node)

    def comments_above(self, line: int) -> list[str]:
        """Return the comment lines of this function above a line, nearest first."""
        above = self.lines[self.node.lineno - 1 : line - 1]
        stripped = [text.strip() for text in above]
        return [text[1:].strip() for text in reversed(stripped) if text.startswith("#")]


def find_function(text: str, name: str, file: str) -> Function:
    """Find a function, or Class.method, that can be run one statement at a time; or StudyError."""
    try:
        body = list[ast.stmt](ast.parse(text).body)
    except (SyntaxError, ValueError) as error:
        raise StudyError(f"{file} is not valid Python: {error}") from None
    *owners, last = name.split(".")
    for owner in owners:
        classes = [node for node in body if isinstance(node, ast.ClassDef) and node.name == owner]
        body = classes[-1].body if classes else []
    functions = {node.name: node for node in body if isinstance(node, Def)}
    if last not in functions:
        known = ", ".join(node.name for node in body if isinstance(node, Def)) or "none"
        raise StudyError(f"{file} has no function {name}; functions found: {known}")
    require_straight_line(functions[last], file)
    return Function(functions[last], tuple(text.splitlines()), file)


def require_straight_line(node: Def, file: str) -> None:
    """Raise StudyError unless a function can be run one statement at a time."""
    place, parts = f"{file}: {node.name}", [*own_nodes(node)]
    returns = [part for part in parts if isinstance(part, ast.Return)]
    if returns != node.body[-1:] or returns[0].value is None:
        lines = ", ".join(str(part.lineno) for part in returns) or "none"
        raise StudyError(
            f"{place} must have one return, with a value, as its last statement; "
            f"returns found on line: {lines}"
        )
    for part in parts:
        if isinstance(part, ast.Yield | ast.YieldFrom | ast.Await | ast.Global | ast.Nonlocal):
            kind = type(part).__name__.lower()
            raise StudyError(f"{place} must be a plain function, without {kind}")


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all parts of a function except those of functions and classes defined inside it."""
    for part in ast.iter_child_nodes(node):
        yield part
        if not isinstance(part, Def | ast.Lambda | ast.ClassDef):
            yield from own_nodes(part)
