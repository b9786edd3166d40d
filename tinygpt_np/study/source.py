"""Reads the functions of a file: their statements, the lines they quote, the shapes they state."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

Def = ast.FunctionDef


class StudyError(ValueError):
    """What was asked for cannot be studied; says what was expected and what came."""


@dataclass(frozen=True)
class Statement:
    """One statement. text: as one line, without its comment. shape: what its comment states.

    sets: the names it gives a value, or whose value it changes in place. reads: those whose values
    flow on into what it sets. mentions: every name that it reads, for whatever purpose. seen:
    the names whose values it was seen to change in place; None: as its text tells.
    """

    node: ast.stmt
    text: str
    shape: str
    seen: tuple[str, ...] | None = None

    @property
    def line(self) -> int:
        return self.node.lineno

    @cached_property
    def sets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*names_stored(self.node), *self.changes]))

    @cached_property
    def changes(self) -> tuple[str, ...]:
        """The names whose values it may change in place."""
        return tuple(dict.fromkeys(names_changed(self.node) if self.seen is None else self.seen))

    @cached_property
    def mentions(self) -> frozenset[str]:
        names = (part for part in ast.walk(self.node) if isinstance(part, ast.Name))
        return frozenset({n.id for n in names if isinstance(n.ctx, ast.Load)} | {*self.changes})

    @cached_property
    def reads(self) -> frozenset[str]:
        if isinstance(self.node, ast.Assign | ast.AnnAssign | ast.AugAssign) and self.node.value:
            return frozenset(flowing_reads(self.node.value) | {*self.changes})
        return self.mentions


def names_stored(node: ast.stmt) -> Iterator[str]:
    """The names that a statement stores to, those inside loops and conditions included.

    Not the variable of a comprehension, which is known inside it alone.
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
    """The names whose values a statement may change in place.

    x += …, x[…] = …, out=x, and the object or the first argument of a call whose result nobody
    takes.
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


def flowing_reads(node: ast.expr) -> set[str]:
    """The names whose values flow on: not those that are only compared, or asked for their shape.

    np.real cuts too: what is taken from it is a constant (the largest logit, which cancels).
    """
    match node:
        case (
            ast.Attribute(attr="shape" | "dtype" | "ndim" | "size")
            | ast.Compare()
            | ast.Call(func=ast.Attribute(attr="real"))
        ):
            return set()
        case ast.IfExp():
            return flowing_reads(node.body) | flowing_reads(node.orelse)
        case ast.Name():
            return {node.id}
        case _:
            children = list(ast.iter_child_nodes(node))
            parts = [part.value if isinstance(part, ast.keyword) else part for part in children]
            expressions = [part for part in parts if isinstance(part, ast.expr)]
            return {name for part in expressions for name in flowing_reads(part)}


@dataclass(frozen=True)
class Function:
    """A function as it stands in a file. lines: those of the whole file; where: its name."""

    node: Def
    lines: tuple[str, ...]
    where: str

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def arguments(self) -> tuple[str, ...]:
        args = self.node.args
        return tuple(arg.arg for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs))

    @property
    def docstring(self) -> str:
        return ast.get_docstring(self.node) or ""

    @cached_property
    def statements(self) -> tuple[Statement, ...]:
        """The body without docstring and return."""
        body = self.node.body[bool(ast.get_docstring(self.node)) :]
        return tuple(self.statement(node) for node in body if not isinstance(node, ast.Return))

    @property
    def returned(self) -> ast.Return:
        last = self.node.body[-1]
        assert isinstance(last, ast.Return)
        return last

    def statement(self, node: ast.stmt) -> Statement:
        """A statement of this function, with the shape that the end of its last line states."""
        last = self.lines[(node.end_lineno or node.lineno) - 1]
        comment = re.search(r"#\s*(\(.*\))\s*$", last)
        return Statement(node, self.text(node), comment.group(1) if comment else "")

    def text(self, node: ast.stmt) -> str:
        """The source of a statement as one line; of a compound one, its head."""
        if isinstance(node, ast.For | ast.While | ast.If | ast.With):
            head = ast.unparse(node).splitlines()[0]
            return f"{head} …"
        # Columns count bytes. (ast.get_source_segment would split the whole file each time.)
        raw = [line.encode() for line in self.lines[node.lineno - 1 : node.end_lineno]]
        raw[-1] = raw[-1][: node.end_col_offset]
        raw[0] = raw[0][node.col_offset :]
        lines = [re.sub(r"#.*", "", line.decode()).strip() for line in raw]
        text = " ".join(lines).strip()
        # Of a planted bug the source knows nothing.
        return text if is_source_of(text, node) else ast.unparse(node)

    def comments_above(self, line: int) -> list[str]:
        """The comments that stand alone on lines of this function above a line, nearest first."""
        above = self.lines[self.node.lineno - 1 : line - 1]
        stripped = [text.strip() for text in above]
        return [text[1:].strip() for text in reversed(stripped) if text.startswith("#")]

    def changed(self, node: Def) -> "Function":
        """The same place in the file with another tree, as a planted bug has."""
        return replace(self, node=node)


def is_source_of(text: str, node: ast.stmt) -> bool:
    try:
        return ast.dump(ast.Module([node], [])) == ast.dump(ast.parse(text))
    except SyntaxError:
        return False


def parse(text: str, where: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise StudyError(f"{where} is no Python source: {error}") from None


def find(text: str, name: str, where: str) -> Function:
    """The function, or Class.method, of this name in a source. It must end in its one return."""
    parts, body = name.split("."), list[ast.stmt](parse(text, where).body)
    for owner in parts[:-1]:
        owners = [node for node in body if isinstance(node, ast.ClassDef) and node.name == owner]
        body = owners[-1].body if owners else []
    found = [node for node in body if isinstance(node, Def) and node.name == parts[-1]]
    if not found:
        known = ", ".join(node.name for node in body if isinstance(node, Def)) or "none at all"
        raise StudyError(f"{where} has no function {name}; it has: {known}")
    check(found[-1], where)
    return Function(found[-1], tuple(text.splitlines()), where)


def check(node: Def, where: str) -> None:
    """Raises unless a function can be run statement by statement."""
    place = f"{where}: {node.name}"
    returns = [part for part in own_nodes(node) if isinstance(part, ast.Return)]
    if returns != node.body[-1:] or returns[0].value is None:
        lines = ", ".join(str(part.lineno) for part in returns) or "none"
        raise StudyError(f"{place} must return once, a value, at its end, not on line {lines}")
    for part in own_nodes(node):
        if isinstance(part, ast.Yield | ast.YieldFrom | ast.Await | ast.Global | ast.Nonlocal):
            kind = type(part).__name__.lower()
            raise StudyError(f"{place} must be a plain function, without {kind}")


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All parts of a function, but not those of functions inside it."""
    for part in ast.iter_child_nodes(node):
        yield part
        if not isinstance(part, Def | ast.Lambda | ast.ClassDef):
            yield from own_nodes(part)
