"""Read the source of the package and trace it while it runs, for the tests of the rules."""

import ast
import graphlib
import itertools
import re
import sys
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, cast

import numpy as np

import tinygpt_np as tg
from tinygpt_np.gradcheck.cases import CASES
from tinygpt_np.study.source.parse import differentiable_reads
from tinygpt_np.study.source.shapes import contradicts, is_shape

PACKAGE = Path(tg.__file__).parent
TESTS = Path(__file__).parents[1]
DYNAMIC = ("importlib.import_module", "import_module", "__import__", "runpy.run_module")
OPERATIONS = sorted(
    p.stem for p in (PACKAGE / "ops").glob("*.py") if p.stem not in ("__init__", "contract")
)


def source(*parts: str) -> str:
    """Return the source of a file of the package."""
    return PACKAGE.joinpath(*parts).read_text(encoding="utf-8")


def functions(text: str) -> dict[str, ast.FunctionDef]:
    """Return all functions and methods in a source, by name."""
    found = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
    return {node.name: node for node in found}


def class_names(folder: Path) -> list[str]:
    """Return the names of all classes defined in a folder, as often as they are defined."""
    sources = (path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    return [name for text in sources for name in re.findall(r"^ *class (\w+)", text, re.MULTILINE)]


def names_in(node: ast.AST) -> set[str]:
    """Return all names in a tree."""
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def imports(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports anywhere, or names in a string."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and re.fullmatch(r"tinygpt_np(\.\w+)+", str(node.value)):
            yield str(node.value)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def import_graph(package: Path) -> dict[str, set[str]]:
    """Return the modules of a package that each of its modules imports, lazily or not.

    A name that the package itself exports counts as the module that defines it.
    """
    names = {module_name(package, path): path for path in package.rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        found = {defining(module) for module in imports(path)}
        inside = {longest(module, names) for module in found} - {"", name}
        # The package itself imports lazily and is no dependency.
        if name != package.name:
            graph[name] = inside - {package.name}
    return graph


def module_name(package: Path, path: Path) -> str:
    """Return the dotted name of a file's module."""
    parts = (package.name, *path.relative_to(package).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


def defining(module: str) -> str:
    """Return the module of a name that the package exports; any other name as it is."""
    package, _, name = module.partition(".")
    return tg.MODULES.get(name, module) if package == tg.__name__ else module


def longest(module: str, known: Container[str]) -> str:
    """Return the longest dotted prefix that is a known module, or ""."""
    while module and module not in known:
        module = module.rpartition(".")[0]
    return module


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return modules that import each other, or an empty list."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def imports_dynamically(path: Path) -> bool:
    """Return whether a file imports a module of the package by a computed name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in DYNAMIC:
            name = node.args[0]
            if not isinstance(name, ast.Constant) or str(name.value).startswith("tinygpt_np"):
                return True
    return False


@dataclass(frozen=True)
class Line:
    """A statement of a forward: its text without the shape comment, the names it sets and reads."""

    text: str
    sets: tuple[str, ...]
    reads: set[str]
    operations: int


def forward_lines(operation: str) -> list[Line]:
    """Return the statements of an operation's forward."""
    text = source("ops", f"{operation}.py")
    return [read_line(text, node) for node in statements(functions(text)["forward"])]


def statements(function: ast.FunctionDef) -> list[ast.stmt]:
    """Return the body of a function without docstring and return."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[:-1]


def read_line(text: str, node: ast.stmt) -> Line:
    """Return one statement of a forward."""
    assert isinstance(node, ast.Assign), f"a forward assigns, line {node.lineno} does not"
    assert len(node.targets) == 1
    sets = tuple(part.id for part in ast.walk(node.targets[0]) if isinstance(part, ast.Name))
    segment = " ".join((ast.get_source_segment(text, node) or "").split())
    return Line(segment, sets, differentiable_reads(node.value), count_operations(node.value))


def count_operations(node: ast.expr) -> int:
    """Count operators, calls and subscripts in an expression; a choice counts its larger side."""
    if isinstance(node, ast.IfExp):
        return max(count_operations(node.body), count_operations(node.orelse))
    own = isinstance(node, ast.BinOp | ast.Call | ast.Compare | ast.Subscript)
    children = (p for p in ast.iter_child_nodes(node) if isinstance(p, ast.expr))
    return own + sum(count_operations(child) for child in children)


def flowing(operation: str) -> set[str]:
    """Return the names of a forward through which a gradient flows."""
    names = {arg for case in CASES if case.operation == operation for arg in case.differentiable}
    for line in forward_lines(operation):
        if line.reads & names:
            names |= {name for name in line.sets if not name.startswith("saved")}
    return names


def line_backward(operation: str) -> str:
    """Return the name of the backward that reverses the forward line by line."""
    found = functions(source("ops", f"{operation}.py"))
    return "backward_steps" if "backward_steps" in found else "backward"


def quotes(operation: str) -> list[tuple[str, set[str]]]:
    """Return each quoted forward line of the backward, with the d-names that are set below it."""
    text = source("ops", f"{operation}.py")
    function = functions(text)[line_backward(operation)]
    assert function.end_lineno is not None
    found: list[tuple[str, set[str]]] = []
    for line in text.splitlines()[function.lineno - 1 : function.end_lineno]:
        stripped = line.strip()
        if stripped.startswith("# "):
            found.append((stripped[2:], set()))
        elif found and (match := re.match(r"(d\w+)\s*\+?=", stripped)):
            found[-1][1].add(match.group(1))
    return found


def calls(function: ast.FunctionDef, kind: str) -> list[str]:
    """Return the operations that a method of the model calls, in order."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if node.func.attr == kind and isinstance(owner, ast.Attribute):
                found.append((node.lineno, owner.attr))
            elif node.func.attr == f"block_{kind}":
                found.append((node.lineno, "block"))
    return [name for _, name in sorted(found)]


class Watch:
    """Traces all functions of one file line by line while they run.

    arrays: every array they assign, by function and name. Each assignment of an array must end in a
    comment with its shape, which must be right; a letter means the same size everywhere.
    """

    def __init__(self, *parts: str) -> None:
        self.file = str(PACKAGE.joinpath(*parts))
        text = source(*parts)
        self.lines = text.splitlines()
        self.assignments = {
            node.lineno: node
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Assign | ast.AugAssign)
        }
        self.arrays: dict[str, dict[str, np.ndarray]] = {}
        self.letters: dict[str, int] = {}
        self.checked = 0

    def run(self, job: Callable[[], Any]) -> "Watch":
        """Run a job and trace it."""
        before = sys.gettrace()
        sys.settrace(self.enter)
        try:
            job()
        finally:
            sys.settrace(before)
        return self

    def enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Trace a function if it is in the file."""
        if frame.f_code.co_filename != self.file or frame.f_code.co_name.startswith("<"):
            return None
        last = frame.f_lineno

        def each(frame: FrameType, event: str, arg: Any) -> Any:
            nonlocal last
            self.look(frame, last)
            last = frame.f_lineno
            return each

        return each

    def look(self, frame: FrameType, number: int) -> None:
        """Check the arrays assigned by the line that has just run in this frame."""
        known = self.arrays.setdefault(frame.f_code.co_name, {})
        for name, value in frame.f_locals.items():
            if isinstance(value, np.ndarray | np.floating):
                known[name] = np.asarray(cast(Any, value))
        node = self.assignments.get(number)
        if node is None:
            return
        # Unpacked values have their shape where they were computed.
        if isinstance(node.value, ast.Name) and unpacks(node):
            return
        assert node.end_lineno is not None
        line = self.lines[node.end_lineno - 1]
        comment = re.search(r"# (\(.*\))$", line)
        shapes = re.findall(r"\(([^()]*)\)", comment.group(1)) if comment else []
        found = [(target, value_of(target, frame)) for target in targets_of(node)]
        for (target, value), shape in zip(found, itertools.cycle(shapes or [None]), strict=False):
            # A forward returns its output and a tuple of saved values.
            if isinstance(value, np.ndarray) or (isinstance(value, np.floating) and shape):
                where = f"{ast.unparse(target)} in: {line.strip()}"
                assert shape is not None, f"no shape for {where}"
                self.check(np.asarray(cast(Any, value)).shape, shape, where)

    def check(self, shape: tuple[int, ...], comment: str, where: str) -> None:
        """Check a shape against its comment."""
        self.checked += 1
        assert is_shape(f"({comment})"), f"({comment}) is not a shape, in {where}"
        wrong = contradicts(f"({comment})", shape, self.letters)
        assert not wrong, f"{where} is {shape}; the letters are {self.letters}"


def unpacks(node: ast.Assign | ast.AugAssign) -> bool:
    """Return whether a statement assigns to a tuple."""
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple)


def targets_of(node: ast.Assign | ast.AugAssign) -> list[ast.expr]:
    """Return the targets that a statement assigns."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    nested = (t.elts if isinstance(t, ast.Tuple) else [t] for t in targets)
    return [target for part in nested for target in part]


def value_of(target: ast.expr, frame: FrameType) -> Any:
    """Return the value of a name, or of a name and a key, such as grads["wte.weight"]."""
    match target:
        case ast.Name(id=name):
            return frame.f_locals.get(name)
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str(key))):
            return frame.f_locals[name].get(key)
        case _:
            return None
