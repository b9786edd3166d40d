"""Read the source of the package and trace it while it runs, for the tests of the rules."""

import ast
import graphlib
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, cast

import numpy as np

import tinygpt_np as tg
from tinygpt_np.gradcheck.cases import CASES
from tinygpt_np.study.source.parse import Function, find_function
from tinygpt_np.study.source.shapes import contradicts, is_shape

PACKAGE = Path(tg.__file__).parent
TESTS = Path(__file__).parents[1]
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


# Imports


def import_graph(package: Path) -> dict[str, set[str]]:
    """Return the modules of a package that each of its modules imports, lazily or not.

    A name that the package itself exports counts as the module that defines it. The package itself
    imports lazily and is no dependency.
    """
    names = {path: module_name(package, path) for path in package.rglob("*.py")}
    known = {*names.values()} - {package.name}
    return {
        name: {longest(tg.MODULES.get(found.removeprefix("tinygpt_np."), found), known) for found in
               imports(path)} - {"", name}
        for path, name in names.items() if name in known
    }  # fmt: skip


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


def module_name(package: Path, path: Path) -> str:
    """Return the dotted name of a file's module."""
    parts = (package.name, *path.relative_to(package).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


def longest(module: str, known: set[str]) -> str:
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


# Operations


@cache
def parsed(operation: str, name: str = "forward") -> Function:
    """Return a function of an operation."""
    return find_function(source("ops", f"{operation}.py"), name, f"{operation}.py")


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
    for line in parsed(operation).statements:
        if line.reads & names:
            names |= {name for name in line.sets if not name.startswith("saved")}
    return names


def line_backward(operation: str) -> str:
    """Return the name of the backward that reverses the forward line by line."""
    found = functions(source("ops", f"{operation}.py"))
    return "backward_steps" if "backward_steps" in found else "backward"


def quotes(operation: str) -> list[tuple[str, set[str]]]:
    """Return each quoted forward line of the backward, with the d-names that are set below it."""
    function = parsed(operation, line_backward(operation))
    found: list[tuple[str, set[str]]] = []
    for line in function.lines[function.node.lineno - 1 : function.node.end_lineno]:
        stripped = line.strip()
        if stripped.startswith("# "):
            found.append((stripped[2:], set()))
        elif found and (match := re.match(r"(d\w+(?:, d\w+)*)\s*\+?=", stripped)):
            found[-1][1].update(match.group(1).split(", "))
    return found


# Shapes


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
        if node is None or (isinstance(node.value, ast.Name) and isinstance(node, ast.Assign)
                            and isinstance(node.targets[0], ast.Tuple)):  # fmt: skip
            return  # Unpacked values have their shape where they were computed.
        assert node.end_lineno is not None
        line = self.lines[node.end_lineno - 1]
        comment = re.search(r"# (\(.*\))$", line)
        shapes = re.findall(r"\(([^()]*)\)", comment.group(1)) if comment else []
        targets = named_targets(node)
        for target, shape in zip(targets, itertools.cycle(shapes or [None]), strict=False):
            value: Any = eval(target, {}, frame.f_locals)
            # A forward returns its output and a tuple of saved values.
            if isinstance(value, np.ndarray) or (isinstance(value, np.floating) and shape):
                where = f"{target} in: {line.strip()}"
                assert shape is not None, f"no shape for {where}"
                self.check(np.shape(cast(Any, value)), shape, where)

    def check(self, shape: tuple[int, ...], comment: str, where: str) -> None:
        """Check a shape against its comment."""
        self.checked += 1
        assert is_shape(f"({comment})"), f"({comment}) is not a shape, in {where}"
        wrong = contradicts(f"({comment})", shape, self.letters)
        assert not wrong, f"{where} is {shape}; the letters are {self.letters}"


def named_targets(node: ast.Assign | ast.AugAssign) -> Iterator[str]:
    """Yield the names that a statement assigns, and items such as grads["wte.weight"]."""
    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
        for part in target.elts if isinstance(target, ast.Tuple) else [target]:
            if isinstance(part, ast.Name) or isinstance(getattr(part, "slice", None), ast.Constant):
                yield ast.unparse(part)
