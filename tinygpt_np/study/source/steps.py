"""Run a function one step at a time: follow its branches, unroll its loops, step into its methods.

A step is a simple statement, such as an assignment. The header of a branch is no step; neither is
that of a loop over constants, such as a range. A loop with many rounds is a single step, and so are
other compound statements. A call of a method of a class in the same file is replaced by the steps
of the method.
"""

import ast
import copy
import itertools
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import CodeType
from typing import Any, TypeVar, cast

import numpy as np

from tinygpt_np.gradcheck.tree import contents
from tinygpt_np.study.source.parse import (
    Def,
    Function,
    Statement,
    StudyError,
    own_names,
    own_nodes,
    stored_in,
)
from tinygpt_np.study.source.paths import SCOPE, Namespace, expression, path_to, read, resolve

# Loops with more rounds in total are a single step.
MAX_ITERATIONS = 16
MAX_DEPTH = 8
# Names that no source can use: of the items of a loop, and of a condition or iterable.
ITEMS, HEADER = "items of the loop", "value of the header"
# The way a block ends: by break, continue or return, or normally.
Signal = ast.Break | ast.Continue | ast.Return | None
Steps = Generator["Step", None, Signal]
Node = TypeVar("Node", bound=ast.stmt)


@dataclass(frozen=True)
class Step:
    """A statement to be run, in one iteration of the loops around it.

    function: the function that contains it. bindings: the variables of the loops. code: compiled.
    binds: the names that are set before it runs.
    """

    index: int
    statement: Statement
    bindings: Mapping[str, Any]
    code: CodeType
    function: Function
    binds: Namespace = field(default_factory=dict[str, Any])

    @property
    def iteration(self) -> str:
        """The iteration of the loops, such as "layer = 0", or ""."""
        return ", ".join(f"{name} = {value}" for name, value in self.bindings.items())

    def run(self, namespace: Namespace) -> Any:
        """Execute the statement in a namespace; return what a return statement returns."""
        namespace.update(self.binds)
        return eval(self.code, namespace)


@dataclass(frozen=True)
class Scope:
    """The place of a statement: in a function whose names have others in the run, and in loops.

    rounds: the number of rounds that loops may have here. depth: of calls.
    """

    function: Function
    names: Mapping[str, ast.expr] = field(default_factory=dict[str, ast.expr])
    bindings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    rounds: int = MAX_ITERATIONS
    depth: int = 0

    def renamed(self, node: Any) -> Any:
        """Return a tree with the names of the run."""
        return Renamer(self.names).visit(copy.deepcopy(node)) if self.names else node


class Renamer(ast.NodeTransformer):
    """Replaces the local names of a method."""

    def __init__(self, names: Mapping[str, ast.expr]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Return what stands for a name."""
        other = self.names.get(node.id)
        if other is None:
            return node
        if isinstance(other, ast.Name):
            return ast.copy_location(ast.Name(other.id, node.ctx), node)
        return copy.deepcopy(other)

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        """Rename what a lambda reads, except its arguments."""
        return self.without(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Rename what a nested function reads, except its own names."""
        return self.without(node)

    def without(self, node: ast.AST) -> ast.AST:
        """Rename the names in a nested function that are not its own."""
        own = own_names(node)
        names = {name: other for name, other in self.names.items() if name not in own}
        return Renamer(names).generic_visit(node)


class Stepper:
    """Yields the steps of a function, each of which must run before the next is asked for.

    namespace: in which the steps run. end: afterwards, the return statement that was reached.
    """

    def __init__(self, function: Function, module: Namespace, args: Namespace) -> None:
        self.function, self.module = function, module
        # The arguments come first: the paths of objects start with them.
        self.namespace: Namespace = {**args, **module, **args}
        self.end: Step | None = None
        self.line = function.node.lineno
        # Set before the next step.
        self.pending = Namespace()
        self.index, self.counts = 0, dict[str, int]()
        self.codes = dict[int, tuple[ast.AST, CodeType]]()
        self.blocks = list[tuple[list[ast.stmt], int]]()

    def __iter__(self) -> Iterator[Step]:
        scope = Scope(self.function)
        returned = yield from self.block(self.function.body, scope)
        if not isinstance(returned, ast.Return) or returned.value is None:
            place = f"{self.function.file}, line {self.line}: {self.function.name}"
            raise StudyError(f"{place} must return a value, but it ends without a return")
        self.end = self.step(getattr(returned, "original", returned), returned, scope)

    @property
    def following(self) -> list[ast.stmt]:
        """The statements of the function after the current one, in the blocks that were entered."""
        return [node for block, index in reversed(self.blocks) for node in block[index + 1 :]]

    # Statements

    def block(self, nodes: list[ast.stmt], scope: Scope) -> Steps:
        """Run statements in order, until one leaves the block."""
        is_own = scope.depth == 0
        for index, node in enumerate(nodes):
            self.blocks += [(nodes, index)] if is_own else []
            signal = yield from self.statement(node, scope)
            if is_own:
                self.blocks.pop()
            if signal is not None:
                return signal
        return None

    def statement(self, node: ast.stmt, scope: Scope) -> Steps:
        """Run one statement."""
        self.line = node.lineno
        match node:
            case ast.Pass() | ast.Assert() | ast.Expr(value=ast.Constant()):
                return None
            case ast.Expr(value=ast.Call(func=ast.Name(id="print"))):
                return None
            case ast.Break() | ast.Continue():
                return node
            case ast.Return():
                return (yield from self.returning(node, scope))
            case ast.If():
                chosen, _ = yield from self.value(node.test, node, scope)
                return (yield from self.block(node.body if chosen else node.orelse, scope))
            case ast.For():
                return (yield from self.loop(node, scope))
            case ast.While(orelse=[]):
                return (yield from self.while_rounds(node, scope))
            case ast.With(items=items) if all(is_errstate(item) for item in items):
                return (yield from self.block(node.body, scope))
            case _:
                pass
        yield from self.simple(node, scope)
        return None

    def simple(self, node: ast.stmt, scope: Scope, running: ast.stmt | None = None) -> Steps:
        """Run a statement as one step, after the steps of the methods that it calls."""
        nested = isinstance(node, Def | ast.ClassDef)
        if not nested and any(isinstance(part, ast.Return) for part in own_nodes(node)):
            kind = type(node).__name__.lower()
            place = f"{self.function.file}, line {node.lineno}"
            raise StudyError(
                f"{place}: a return inside a long or complicated {kind} is not allowed"
            )
        running = running or cast(ast.stmt, scope.renamed(node))
        if self.function.methods:
            running = yield from self.entered(running, node, scope)
        if running is not None:
            yield self.step(node, running, scope)
        return None

    def returning(self, node: ast.Return, scope: Scope) -> Steps:
        """Return the return statement, with the names of the run."""
        running = scope.renamed(node)
        if self.function.methods:
            running = yield from self.entered(running, node, scope)
        running.original = node
        return running

    def step(
        self, node: ast.stmt, running: ast.stmt, scope: Scope, text: str | None = None
    ) -> Step:
        """Return the next step. node: as in the source; running: with the names of the run."""
        statement = scope.function.statement(node, running, self.namespace)
        statement = statement if text is None else replace(statement, text=text, shape="")
        binds, self.pending = self.pending, Namespace()
        self.index += 1
        return Step(
            self.index - 1, statement, scope.bindings, self.code(running), scope.function, binds
        )

    def code(self, node: ast.stmt) -> CodeType:
        """Return the compiled statement; in a loop it is compiled once."""
        known = self.codes.get(id(node))
        if known is None:
            try:
                known = node, compiled(node)
            except SyntaxError as error:
                place = f"{self.function.file}, line {node.lineno}"
                raise StudyError(f"{place}: cannot be run alone: {error.msg}") from None
            self.codes[id(node)] = known
        return known[1]

    def value(
        self, node: ast.expr, header: ast.stmt, scope: Scope
    ) -> Generator[Step, None, tuple[Any, ast.expr]]:
        """Return the value of a condition or an iterable in a header, and an expression for it.

        If evaluating it changes something or raises, that is a step.
        """
        node = scope.renamed(node)
        if (found := self.evaluated(node)) is not None:
            return found[0], node
        name, text = self.unique(HEADER), scope.function.text(header).removesuffix(": …")
        assign = located_at(header, ast.Assign([ast.Name(name, ast.Store())], node))
        yield self.step(header, assign, scope, text)
        return self.namespace[name], ast.Name(name, ast.Load())

    def evaluated(self, node: ast.expr) -> tuple[Any] | None:
        """Return the value of an expression in a tuple; None if it changes something or raises."""
        for part in ast.walk(node):
            name = part.id if isinstance(part, ast.Name) else ""
            draws = isinstance(self.namespace.get(name), np.random.Generator)
            if draws or isinstance(part, ast.NamedExpr):
                return None
        try:
            return (eval(compiled(node), self.namespace),)
        except Exception:
            return None

    def bind(self, values: Namespace) -> None:
        """Set names now, and before the next step when the steps are run again."""
        self.namespace |= values
        self.pending |= values

    # Loops

    def loop(self, node: ast.For, scope: Scope) -> Steps:
        """Run a loop round by round, or as one step."""
        iterable, items = yield from self.value(node.iter, node, scope)
        if isinstance(iterable, Iterator) and not isinstance(items, ast.Call):
            # An iterator would be exhausted the second time.
            name, iterable = self.unique(ITEMS), [*cast(Any, iterable)]
            self.bind({name: iterable})
            items = ast.Name(name, ast.Load())
        renamed = scope.renamed(node)
        running = ast.For(renamed.target, items, renamed.body, renamed.orelse)
        running = located_at(node, running)
        if (found := self.items(node, iterable, scope)) is not None:
            return (yield from self.rounds(node, running, found, scope))
        yield from self.simple(node, scope, running)
        return None

    def items(self, loop: ast.For, iterable: Any, scope: Scope) -> list[Any] | None:
        """Return the items of a loop that is unrolled, or None if it is one step."""
        targets = (ast.Name, ast.Tuple, ast.List, ast.Starred, ast.expr_context)
        plain = all(isinstance(part, targets) for part in ast.walk(loop.target))
        if loop.orelse or not plain or not isinstance(iterable, Iterable):
            return None
        items = [*itertools.islice(cast(Any, iterable), scope.rounds + 1)]
        inner = loop.body[0]
        if len(items) > scope.rounds or not items or len(loop.body) > 1:
            return items if len(items) <= scope.rounds else None
        # A nest of loops is unrolled completely or stays as it is.
        if isinstance(inner, ast.For):
            names = assigned(scope.renamed(loop.target), items[0])
            before = {name: self.namespace.get(name) for name in names}
            self.namespace |= names
            evaluated = self.evaluated(scope.renamed(inner.iter))
            fewer = replace(scope, rounds=scope.rounds // len(items))
            unrolled = evaluated is not None and self.items(inner, evaluated[0], fewer) is not None
            self.namespace |= before
            return items if unrolled else None
        return items

    def rounds(self, loop: ast.For, running: ast.For, items: list[Any], scope: Scope) -> Steps:
        """Run the rounds of a loop."""
        target, iterable = running.target, running.iter
        is_constant = all(self.is_constant(v) for i in items for v in assigned(target, i).values())
        name = "" if is_constant else self.unique(ITEMS)
        store_items = ast.Assign(
            [ast.Name(name, ast.Store())], ast.List([ast.Starred(iterable, ast.Load())], ast.Load())
        )
        header = scope.function.text(loop).removesuffix(": …")
        for index, item in enumerate(items):
            inner = replace(scope, rounds=scope.rounds // len(items))
            if is_constant:
                bound = assigned(loop.target, item)
                inner = replace(inner, names={**scope.names})
                labels = {name: self.bind_item(name, each, inner) for name, each in bound.items()}
            else:
                labels = {"round": index}
                part = ast.Subscript(ast.Name(name, ast.Load()), ast.Constant(index), ast.Load())
                body: list[ast.stmt] = [] if index else [store_items]
                body.append(ast.Assign([target], part))
                binding = located_at(loop, ast.If(ast.Constant(True), body, []))
                inner = replace(inner, bindings={**scope.bindings, **labels})
                yield self.step(loop, binding, inner, header)
            inner = replace(inner, bindings={**scope.bindings, **labels})
            signal = yield from self.block(loop.body, inner)
            if isinstance(signal, ast.Return):
                return signal
            if isinstance(signal, ast.Break):
                break
        return None

    def is_constant(self, item: Any) -> bool:
        """Return whether what a loop variable stands for needs no step: it depends on no array."""
        if isinstance(item, tuple):
            return all(map(self.is_constant, cast(tuple[Any, ...], item)))
        if contents(item) is None:
            return item is None or isinstance(item, int | str | slice | np.integer)
        path = path_to(item, self.namespace)
        return path is not None and SCOPE not in path

    def bind_item(self, name: str, item: Any, scope: Scope) -> Any:
        """Bind a loop variable, in the scope if it is an object; return what is shown for it."""
        path = path_to(item, self.namespace)
        if path is None:
            self.bind({cast(ast.Name, scope.renamed(ast.Name(name, ast.Load()))).id: item})
            return item
        cast(dict[str, ast.expr], scope.names)[name] = expression(path)
        return path

    def while_rounds(self, loop: ast.While, scope: Scope) -> Steps:
        """Run the rounds of a while loop; the last step runs all rounds above the limit."""
        for index in range(scope.rounds):
            goes_on, _ = yield from self.value(loop.test, loop, scope)
            if not goes_on:
                return None
            inner = replace(
                scope, rounds=scope.rounds // 4, bindings={**scope.bindings, "round": index}
            )
            signal = yield from self.block(loop.body, inner)
            if isinstance(signal, ast.Return):
                return signal
            if isinstance(signal, ast.Break):
                return None
        yield from self.simple(loop, scope)
        return None

    # Methods

    def entered(
        self, running: ast.stmt, node: ast.stmt, scope: Scope
    ) -> Generator[Step, None, Any]:
        """Run the methods that a statement calls; return what is left of the statement, or None.

        node: as in the source. running: with the names of the run.
        """
        value: ast.AST | None = getattr(running, "value", None)
        while value is not None:
            called = ((call, self.method(call, scope)) for call in calls_in(value))
            found = next(
                (
                    (call, method)
                    for call, method in called
                    # An object without a name of its own is made in one step.
                    if method is not None and (call is value or not method.is_class)
                ),
                None,
            )
            if found is None:
                return running
            call, method = found
            if running is node:
                # The source must not change.
                return (yield from self.entered(copy.deepcopy(node), node, scope))
            if call is value and isinstance(running, ast.Expr):
                yield from self.call(call, method, None, node, scope)
                return None
            if call is value and isinstance(running, ast.Assign) and len(running.targets) == 1:
                yield from self.call(call, method, running.targets[0], node, scope)
                return None
            name = self.unique(f"result{SCOPE}{method.name}")
            yield from self.call(call, method, ast.Name(name, ast.Store()), node, scope)
            running = Substitute(call, ast.Name(name, ast.Load())).visit(running)
            value = getattr(running, "value", None)
        return running

    def method(self, call: ast.Call, scope: Scope) -> "Method | None":
        """Return the method that a call runs, if it can be stepped into."""
        func, owner = call.func, None
        path = resolve(func, self.namespace)
        value = None if path is None else read(self.namespace, path)
        if isinstance(value, type):
            name, kind = "__init__", cast(Any, value)
            if kind.__new__ is not object.__new__:
                return None
        elif isinstance(func, ast.Attribute) and path is None:
            path = resolve(func.value, self.namespace)
            name, owner = func.attr, None if path is None else read(self.namespace, path)
            kind = cast(Any, type(owner))
        else:
            name, owner = "__call__", value
            kind = cast(Any, type(owner))
        if path is None or scope.depth >= MAX_DEPTH or name in getattr(owner, "__dict__", {}):
            return None
        defining = next((each.__name__ for each in kind.__mro__ if name in vars(each)), "")
        function = self.function.methods.get(f"{defining}.{name}")
        args = None if function is None else bound_arguments(function.node, call)
        if function is None or args is None:
            return None
        defaults = cast(Any, vars(next(c for c in kind.__mro__ if name in vars(c)))[name])
        return Method(function, path, args, isinstance(value, type), default_values(defaults))

    def call(
        self, call: ast.Call, method: "Method", target: ast.expr | None, node: ast.stmt,
        scope: Scope,
    ) -> Generator[Step, None, None]:  # fmt: skip
        """Run a method, or make an object, and assign the result to a target if there is one."""
        function, path = method.function, method.path
        if method.is_class:
            target = target or ast.Name(self.unique(f"object{SCOPE}{method.name}"), ast.Store())
            new = ast.Call(ast.Attribute(call.func, "__new__", ast.Load()), [call.func], [])
            yield self.step(node, located_at(node, ast.Assign([target], new)), scope)
            path = resolve(with_load(target), self.namespace) or path
        label = self.unique(f"{SCOPE}{method.name}")
        stored = set[str]().union(*map(stored_in, function.body))
        names: dict[str, ast.expr] = {n: ast.Name(n + label, ast.Load()) for n in stored}
        names[function.node.args.args[0].arg] = expression(path)
        for name, arg in method.args.items():
            if name not in stored and isinstance(arg, ast.Name | ast.Constant):
                names[name] = arg
                continue
            names[name] = ast.Name(name + label, ast.Load())
            binding = ast.Assign([ast.Name(name + label, ast.Store())], arg)
            yield self.step(node, located_at(node, binding), scope, f"{name} = {ast.unparse(arg)}")
        others = {n: v for n, v in method.defaults.items() if n not in method.args}
        loaded = {part.id for part in ast.walk(function.node) if isinstance(part, ast.Name)}
        # A local name of the caller hides one of the module.
        others |= {
            n: self.module[n] for n in loaded - {*names} - {*others}
            if n in self.module and self.namespace.get(n) is not self.module[n]
        }  # fmt: skip
        for name, value in others.items():
            names[name] = ast.Name(name + label, ast.Load())
            self.bind({name + label: value})
        inner = replace(scope, function=function, names=names, depth=scope.depth + 1)
        returned = yield from self.block(function.body, inner)
        if target is None or method.is_class:
            return
        where, original, value = scope, node, ast.Constant(None)
        if isinstance(returned, ast.Return):
            where, original = inner, getattr(returned, "original", returned)
            value = returned.value or value
        yield self.step(original, located_at(original, ast.Assign([target], value)), where)

    def unique(self, name: str) -> str:
        """Return a name that no other call or loop has: the name, or with a number."""
        self.counts[name] = count = self.counts.get(name, 0) + 1
        return name if count == 1 else f"{name} {count}"


@dataclass(frozen=True)
class Method:
    """A method that a call runs.

    path: of the object, or of the class if the call makes an object. args: the arguments of the
    call by name. defaults: of the others.
    """

    function: Function
    path: str
    args: Mapping[str, ast.expr]
    is_class: bool
    defaults: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of the method."""
        return self.function.name


class Substitute(ast.NodeTransformer):
    """Replaces one call in a tree."""

    def __init__(self, call: ast.Call, by: ast.expr) -> None:
        self.call, self.by = call, by

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Return the replacement for the call."""
        return ast.copy_location(self.by, node) if node is self.call else self.generic_visit(node)


def calls_in(node: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls in an expression that always run, in the order in which they run."""
    skipped = ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp
    if isinstance(node, (*skipped, ast.IfExp, ast.BoolOp)):
        return
    for part in ast.iter_child_nodes(node):
        yield from calls_in(part)
    if isinstance(node, ast.Call):
        yield node


def bound_arguments(method: Def, call: ast.Call) -> dict[str, ast.expr] | None:
    """Return the arguments of a call of a method by name; None if they are not plain."""
    spec = method.args
    names = [arg.arg for arg in (*spec.posonlyargs, *spec.args)][1:]
    others = [arg.arg for arg in spec.kwonlyargs]
    plain = spec.vararg is None is spec.kwarg and not any(
        isinstance(arg, ast.Starred) for arg in call.args
    )
    if not plain or len(call.args) > len(names) or spec.posonlyargs:
        return None
    found = dict(zip(names, call.args, strict=False))
    for keyword in call.keywords:
        if keyword.arg is None or keyword.arg in found or keyword.arg not in [*names, *others]:
            return None
        found[keyword.arg] = keyword.value
    required = names[: len(names) - len(spec.defaults)]
    required += [n for n, d in zip(others, spec.kw_defaults, strict=True) if d is None]
    return found if {*required} <= {*found} else None


def default_values(function: Any) -> Namespace:
    """Return the defaults of the arguments of a function."""
    code, defaults = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    last = names[len(names) - len(defaults) :]
    return {**dict(zip(last, defaults, strict=True)), **(function.__kwdefaults__ or {})}


def with_load(target: ast.expr) -> ast.expr:
    """Return the target of an assignment as an expression that reads it."""
    node = copy.deepcopy(target)
    node.ctx = ast.Load()  # pyright: ignore[reportAttributeAccessIssue]
    return node


def located_at(node: ast.stmt, made: Node) -> Node:
    """Return a tree that was made, at the place of a statement of the source."""
    return ast.fix_missing_locations(ast.copy_location(made, node))


def assigned(target: ast.expr, value: Any) -> Namespace:
    """Return the names that the assignment of a value to a target sets."""
    namespace, node = Namespace(), ast.Assign([target], ast.Name("value", ast.Load()), lineno=0)
    namespace["value"] = value
    exec(compiled(node), namespace)
    return {name: value for name, value in namespace.items() if name in stored_in(target)}


def is_errstate(item: ast.withitem) -> bool:
    """Return whether a context manager only silences warnings of NumPy."""
    call = item.context_expr
    return isinstance(call, ast.Call) and ast.unparse(call.func).endswith("errstate")


def compiled(node: ast.stmt | ast.expr) -> CodeType:
    """Compile a statement, an expression, or the expression that a statement returns."""
    value = node.value if isinstance(node, ast.Return) else node
    is_expression = isinstance(value, ast.expr)
    tree = ast.Expression(value) if is_expression else ast.Module([cast(ast.stmt, node)], [])
    return compile(ast.fix_missing_locations(tree), "<study>", "eval" if is_expression else "exec")
