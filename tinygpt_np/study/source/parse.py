"""Parse a function: its statements, the lines quoted in its comments and the shapes they state."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tinygpt_np.study.source.paths import CONSTANT_ATTRIBUTES, Namespace, parsed, resolve

Def = ast.FunctionDef


class StudyError(ValueError):
    """Raised if a target cannot be studied; the message says what was expected and found."""


@dataclass(frozen=True)
class Statement:
    """One statement of a function.

    text: the source on one line, without its comment. shape: the shape stated by the comment, or
    "". The names are paths (paths.py), resolved where the statement runs. assigned: those that it
    assigns. changes: those whose values it may change in place. differentiable: those through which
    a gradient may flow into what it sets. mentioned: all that it reads, for any purpose.
    """

    node: ast.stmt
    text: str
    shape: str
    assigned: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    differentiable: frozenset[str] = frozenset()
    mentioned: frozenset[str] = frozenset()

    @property
    def line(self) -> int:
        """The line number in the file."""
        return self.node.lineno

    @property
    def sets(self) -> tuple[str, ...]:
        """The names that it assigns or changes."""
        return tuple(dict.fromkeys([*self.assigned, *self.changes]))

    @property
    def mentions(self) -> frozenset[str]:
        """All names that it reads, for any purpose."""
        return self.mentioned | {*self.changes}

    @property
    def reads(self) -> frozenset[str]:
        """The names whose values affect the values that it sets."""
        return self.differentiable | {*self.changes}


class Names:
    """The names that a statement sets and reads, as paths in a namespace."""

    def __init__(self, node: ast.stmt, namespace: Mapping[str, Any]) -> None:
        self.namespace = namespace
        self.assigned, self.changes = list[str](), list[str]()
        self.mentioned, self.differentiable = set[str](), set[str]()
        is_assignment = isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign)
        if is_assignment and node.value is not None:
            self.visit(node.value, True)
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                self.store(target, is_changed=isinstance(node, ast.AugAssign))
        else:
            self.visit(node, True)
            self.differentiable |= self.mentioned

    def statement(self, node: ast.stmt, text: str, shape: str) -> Statement:
        """Return the statement with these names."""
        assigned, changes = dict.fromkeys(self.assigned), dict.fromkeys(self.changes)
        reads, mentioned = frozenset(self.differentiable), frozenset(self.mentioned)
        return Statement(node, text, shape, (*assigned,), (*changes,), reads, mentioned)

    def store(self, target: ast.expr, is_changed: bool = False) -> None:
        """Record the target of an assignment; is_changed: it is changed in place, as in x += 1."""
        if isinstance(target, ast.Tuple | ast.List):
            for part in target.elts:
                self.store(part)
            return
        if isinstance(target, ast.Starred):
            self.store(target.value)
            return
        path = resolve(target, self.namespace)
        if path is not None:
            self.assigned.append(path)
        if isinstance(target, ast.Attribute | ast.Subscript):
            self.visit(getattr(target, "slice", None), False)
            self.mention_alias(target, path)
        if path is None or is_changed:
            self.change(target)

    def change(self, node: ast.expr) -> None:
        """Record the longest path in an expression whose value is changed in place."""
        while (path := resolve(node, self.namespace)) is None:
            if not isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
                return
            node = node.value
        self.changes.append(path)

    def mention(self, path: str | None, flows: bool = False) -> None:
        """Record a name that is read. flows: a gradient may flow through it."""
        if path is not None:
            self.mentioned.add(path)
            self.differentiable |= {path} if flows else set[str]()

    def mention_alias(self, node: ast.expr, path: str | None) -> None:
        """Record the other name by which an object on a path was read."""
        while isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        if isinstance(node, ast.Name) and path is not None and parsed(path)[0] != node.id:
            self.mention(node.id)

    def visit(self, node: ast.AST | None, flows: bool, local: frozenset[str] = frozenset()) -> None:
        """Record the names in a tree, except `local` ones. flows: as for `mention`.

        A name that is only compared or asked for its shape has no gradient, and neither has the
        argument of np.real: its result is treated as a constant, such as the largest logit.
        """
        match node:
            case None:
                return
            case ast.Name(id=name, ctx=ast.Load()):
                self.mention(None if name in local else name, flows)
                return
            case ast.Name(id=name, ctx=ast.Store()):
                self.assigned += [] if name in local else [name]
                return
            case ast.Attribute() | ast.Subscript():
                if isinstance(node.ctx, ast.Store):
                    self.store(node)
                    return
                is_local = bool({*names_in(node)} & local)
                if not is_local and (path := resolve(node, self.namespace)) is not None:
                    self.mention(path, flows)
                    self.mention_alias(node, path)
                    self.visit(getattr(node, "slice", None), False)
                    return
                if isinstance(node, ast.Attribute) and node.attr in CONSTANT_ATTRIBUTES:
                    flows = False
            case ast.AugAssign(target=target, value=value):
                self.visit(value, flows, local)
                self.store(target, is_changed=True)
                return
            case ast.Compare():
                flows = False
            case ast.Call(func=ast.Attribute(attr="real")):
                flows = False
            case ast.IfExp(test=test, body=body, orelse=orelse):
                self.visit(test, False, local)
                self.visit(body, flows, local)
                self.visit(orelse, flows, local)
                return
            case ast.keyword(arg="out", value=value):
                self.change(value)
            case ast.Expr(value=ast.Call(func=func, args=args)):
                # A call whose result is discarded changes its object or its first argument.
                owner = [func.value] if isinstance(func, ast.Attribute) else []
                paths = (resolve(each, self.namespace) for each in (*owner, *args[:1]))
                self.changes += [path for path in paths if path is not None]
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                self.visit(node.generators[0].iter, flows, local)
                targets = [generator.target for generator in node.generators]
                local = local | {name for target in targets for name in names_in(target)}
            case ast.Lambda() | ast.FunctionDef():
                self.assigned += [node.name] if isinstance(node, ast.FunctionDef) else []
                local = local | own_names(node)
            case ast.ClassDef(name=name):
                self.assigned.append(name)
                return
            case ast.alias(name=name, asname=other):
                self.assigned.append(other or name.partition(".")[0])
                return
            case _:
                pass
        for part in ast.iter_child_nodes(node):
            self.visit(part, flows, local)


def stored_in(node: ast.AST) -> set[str]:
    """Return the names that a tree assigns."""
    names = (part for part in ast.walk(node) if isinstance(part, ast.Name))
    return {name.id for name in names if isinstance(name.ctx, ast.Store)}


def own_names(node: ast.AST) -> set[str]:
    """Return the arguments and the local names of a nested function or lambda."""
    return {part.arg for part in ast.walk(node) if isinstance(part, ast.arg)} | stored_in(node)


def names_in(node: ast.AST) -> list[str]:
    """Return all names in a tree, in the order of ast.walk."""
    return [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]


@dataclass(frozen=True)
class Function:
    """A function in a source file, with all lines of the file and the file's displayed name.

    methods: the methods that are stepped into where they are called, by Class.method.
    """

    node: Def
    lines: tuple[str, ...]
    file: str
    methods: Mapping[str, "Function"] = field(default_factory=dict[str, "Function"])

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

    @property
    def body(self) -> list[ast.stmt]:
        """The statements, without the docstring."""
        return self.node.body[bool(ast.get_docstring(self.node)) :]

    @cached_property
    def statements(self) -> tuple[Statement, ...]:
        """The body without docstring and without a return at the end."""
        body = self.body[:-1] if isinstance(self.body[-1], ast.Return) else self.body
        return tuple(self.statement(node) for node in body)

    @property
    def returned(self) -> Statement:
        """The last return statement."""
        returns = (part for part in own_nodes(self.node) if isinstance(part, ast.Return))
        return self.statement(max(returns, key=lambda node: node.lineno))

    @property
    def result(self) -> ast.expr:
        """The returned expression."""
        last = self.returned.node
        assert isinstance(last, ast.Return)
        assert last.value is not None
        return last.value

    def statement(
        self, node: ast.stmt, running: ast.stmt | None = None, namespace: Namespace | None = None
    ) -> Statement:
        """Return a statement of this function with the shape stated at the end of its last line.

        running: the tree that runs in its place; its names are resolved in the namespace.
        """
        running = running or node
        if id(node) not in self.described:
            last = self.lines[(node.end_lineno or node.lineno) - 1]
            comment = re.search(r"#\s*(\(.*\))(?: or None)?\s*$", last)
            shape = comment.group(1) if comment else ""
            self.described[id(node)] = node, self.text(node), shape
        _, text, shape = self.described[id(node)]
        return Names(running, namespace or {}).statement(running, text, shape)

    @cached_property
    def described(self) -> dict[int, tuple[ast.stmt, str, str]]:
        """Text and shape of the statements that were asked for, by the id of the node."""
        return {}

    def text(self, node: ast.stmt) -> str:
        """Return the source of a statement on one line; for a compound statement, its header."""
        if isinstance(node, ast.For | ast.While | ast.If | ast.With | ast.Try | Def):
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
        """Return the comment lines above a line of the same function, nearest first."""
        above = [text.strip() for text in self.lines[: line - 1]]
        start = max((i for i, text in enumerate(above) if text.startswith("def ")), default=0)
        return [text[1:].strip() for text in reversed(above[start:]) if text.startswith("#")]


def find_function(text: str, name: str, file: str, steps_into: bool = False) -> Function:
    """Find a function, or Class.method, that can be run one statement at a time; or StudyError.

    name: as in __qualname__, so a function inside another one is outer.<locals>.inner.
    steps_into: also step into the methods of the classes in the file.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise StudyError(f"{file} is not valid Python: {error}") from None
    lines, body = tuple(text.splitlines()), list[ast.stmt](tree.body)
    *owners, last = name.split(".")
    for owner in owners:
        owned = [n for n in body if isinstance(n, ast.ClassDef | Def) and n.name == owner]
        if owner != "<locals>":
            body = owned[-1].body if owned else []
    functions = {node.name: node for node in body if isinstance(node, Def)}
    if last not in functions:
        known = ", ".join(node.name for node in body if isinstance(node, Def)) or "none"
        raise StudyError(f"{file} has no function {name}; functions found: {known}")
    require_plain(functions[last], file)
    methods = methods_in(tree, lines, file) if steps_into else {}
    return Function(functions[last], lines, file, methods)


def methods_in(tree: ast.Module, lines: tuple[str, ...], file: str) -> dict[str, Function]:
    """Return the methods that can be run one statement at a time in the place of a call."""
    return {
        f"{owner.name}.{node.name}": Function(node, lines, file)
        for owner in tree.body if isinstance(owner, ast.ClassDef)
        for node in owner.body if isinstance(node, Def) and can_be_stepped_into(node)
    }  # fmt: skip


def can_be_stepped_into(node: Def) -> bool:
    """Return whether a method works outside its class, for names such as super do not."""
    refused = ast.Yield | ast.YieldFrom | ast.Await | ast.Global | ast.Nonlocal
    parts = [*ast.walk(node)]
    names = [part.id for part in parts if isinstance(part, ast.Name)]
    names += [part.attr for part in parts if isinstance(part, ast.Attribute)]
    private = any(name.startswith("__") and not name.endswith("__") for name in names)
    is_plain = not any(isinstance(part, refused) for part in parts)
    other = private or node.decorator_list or {"super", "__class__"} & {*names}
    return is_plain and not other


def require_plain(node: Def, file: str) -> None:
    """Raise StudyError unless a function is plain and returns a value."""
    place, parts = f"{file}: {node.name}", [*own_nodes(node)]
    returns = [part for part in parts if isinstance(part, ast.Return)]
    empty = [str(part.lineno) for part in returns if part.value is None]
    if not returns or empty:
        found = f"the return on line {', '.join(empty)} has none" if empty else "it has no return"
        raise StudyError(f"{place} must return a value; {found}")
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
