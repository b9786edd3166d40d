"""Parse a function: its statements, the lines quoted in its comments and the shapes they state."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

Def = ast.FunctionDef


class StudyError(ValueError):
    """Raised if a target cannot be studied; the message says what was expected and found."""


@dataclass(frozen=True)
class Statement:
    """One statement of a function.

    Attributes
    ----------
    text : str
        The source on one line, without its comment.
    shape : str
        The shape stated by the comment, or "".
    observed_changes : tuple of str, optional
        The names whose values it was observed to change in place. Without it, they are inferred
        from the source.
    """

    node: ast.stmt
    text: str
    shape: str
    observed_changes: tuple[str, ...] | None = None

    @property
    def line(self) -> int:
        """The line number in the file."""
        return self.node.lineno

    @cached_property
    def sets(self) -> tuple[str, ...]:
        """The names that it assigns or whose values it changes in place."""
        return tuple(dict.fromkeys([*names_stored(self.node), *self.changes]))

    @cached_property
    def changes(self) -> tuple[str, ...]:
        """The names whose values it may change in place."""
        if self.observed_changes is not None:
            return self.observed_changes
        return tuple(dict.fromkeys(names_changed(self.node)))

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


def names_stored(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement assigns, including those inside loops and conditions.

    The variable of a comprehension is left out, because it is local to the comprehension.
    """
    loops = (part.target for part in ast.walk(node) if isinstance(part, ast.comprehension))
    inner = {id(part) for target in loops for part in ast.walk(target)}
    for part in ast.walk(node):
        match part:
            case ast.Name(id=name, ctx=ast.Store()) if id(part) not in inner:
                yield name
            case _:
                pass


def names_changed(node: ast.stmt) -> Iterator[str]:
    """Yield the names whose values a statement may change in place.

    These are x in `x += …`, `x[…] = …` and `out=x`, and the object or the first argument of a call
    whose result is discarded.
    """
    for part in ast.walk(node):
        match part:
            case ast.AugAssign(target=ast.Name(id=name)):
                yield name
            case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store()):
                yield name
            case ast.keyword(arg="out", value=ast.Name(id=name)):
                yield name
            case ast.Expr(value=ast.Call(func=func, args=args)):
                yield from (first.id for first in args[:1] if isinstance(first, ast.Name))
                if isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name):
                    yield func.value.id
            case _:
                pass


def differentiable_reads(node: ast.expr) -> set[str]:
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
        case ast.IfExp():
            return differentiable_reads(node.body) | differentiable_reads(node.orelse)
        case ast.Name():
            return {node.id}
        case _:
            children = list(ast.iter_child_nodes(node))
            parts = [part.value if isinstance(part, ast.keyword) else part for part in children]
            expressions = [part for part in parts if isinstance(part, ast.expr)]
            return {name for part in expressions for name in differentiable_reads(part)}


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
    def docstring(self) -> str:
        """The docstring, or ""."""
        return ast.get_docstring(self.node) or ""

    @cached_property
    def statements(self) -> tuple[Statement, ...]:
        """The body without docstring and return."""
        body = self.node.body[bool(ast.get_docstring(self.node)) :]
        return tuple(self.statement(node) for node in body if not isinstance(node, ast.Return))

    @property
    def returned(self) -> ast.Return:
        """The return statement, which is the last statement."""
        last = self.node.body[-1]
        assert isinstance(last, ast.Return)
        return last

    def statement(self, node: ast.stmt) -> Statement:
        """Return a statement of this function with the shape stated at the end of its last line."""
        last = self.lines[(node.end_lineno or node.lineno) - 1]
        comment = re.search(r"#\s*(\(.*\))\s*$", last)
        return Statement(node, self.text(node), comment.group(1) if comment else "")

    def text(self, node: ast.stmt) -> str:
        """Return the source of a statement on one line; for a compound statement, its header."""
        if isinstance(node, ast.For | ast.While | ast.If | ast.With):
            head = ast.unparse(node).splitlines()[0]
            return f"{head} …"
        # Columns count bytes. (ast.get_source_segment would split the whole file on every call.)
        raw = [line.encode() for line in self.lines[node.lineno - 1 : node.end_lineno]]
        raw[-1] = raw[-1][: node.end_col_offset]
        raw[0] = raw[0][node.col_offset :]
        lines = [re.sub(r"#.*", "", line.decode()).strip() for line in raw]
        text = " ".join(lines).strip()
        # A planted bug is in the tree only, not in the source.
        return text if is_source_of(text, node) else ast.unparse(node)

    def comments_above(self, line: int) -> list[str]:
        """Return the comment lines of this function above a line, nearest first."""
        above = self.lines[self.node.lineno - 1 : line - 1]
        stripped = [text.strip() for text in above]
        return [text[1:].strip() for text in reversed(stripped) if text.startswith("#")]

    def with_tree(self, node: Def) -> "Function":
        """Return the function with another syntax tree, for a planted bug."""
        return replace(self, node=node)


def is_source_of(text: str, node: ast.stmt) -> bool:
    """Return whether a text parses to the given statement."""
    try:
        return ast.dump(ast.Module([node], [])) == ast.dump(ast.parse(text))
    except SyntaxError:
        return False


def find_function(text: str, name: str, file: str) -> Function:
    """Find a function, or a method given as Class.method, in the source of a file.

    Raises
    ------
    StudyError
        If there is no such function, or if it does not end in its only return statement.
    """
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise StudyError(f"{file} is not valid Python: {error}") from None
    parts, body = name.split("."), list[ast.stmt](module.body)
    for owner in parts[:-1]:
        owners = [node for node in body if isinstance(node, ast.ClassDef) and node.name == owner]
        body = owners[-1].body if owners else []
    found = [node for node in body if isinstance(node, Def) and node.name == parts[-1]]
    if not found:
        known = ", ".join(node.name for node in body if isinstance(node, Def)) or "none"
        raise StudyError(f"{file} has no function {name}; functions found: {known}")
    require_straight_line(found[-1], file)
    return Function(found[-1], tuple(text.splitlines()), file)


def require_straight_line(node: Def, file: str) -> None:
    """Raise StudyError unless a function can be run one statement at a time."""
    place = f"{file}: {node.name}"
    returns = [part for part in own_nodes(node) if isinstance(part, ast.Return)]
    if returns != node.body[-1:] or returns[0].value is None:
        lines = ", ".join(str(part.lineno) for part in returns) or "none"
        raise StudyError(
            f"{place} must have one return, with a value, as its last statement; "
            f"returns found on line: {lines}"
        )
    for part in own_nodes(node):
        if isinstance(part, ast.Yield | ast.YieldFrom | ast.Await | ast.Global | ast.Nonlocal):
            kind = type(part).__name__.lower()
            raise StudyError(f"{place} must be a plain function, without {kind}")


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all parts of a function except those of functions and classes defined inside it."""
    for part in ast.iter_child_nodes(node):
        yield part
        if not isinstance(part, Def | ast.Lambda | ast.ClassDef):
            yield from own_nodes(part)
