"""Reads the source of the package, and watches it run, for the tests of the laws."""

import ast
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, cast

import numpy as np
from ops.cases import CASES

import tinygpt_np as tg

PACKAGE = Path(tg.__file__).parent
TESTS = Path(__file__).parent
OPERATIONS = sorted(p.stem for p in (PACKAGE / "ops").glob("*.py") if p.stem != "__init__")


def source(*parts: str) -> str:
    return PACKAGE.joinpath(*parts).read_text(encoding="utf-8")


def functions(text: str) -> dict[str, ast.FunctionDef]:
    """All functions and methods in a source, by name."""
    found = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
    return {node.name: node for node in found}


def names_in(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@dataclass(frozen=True)
class Line:
    """One statement of a forward: its text without the shape comment, what it sets and reads."""

    text: str
    sets: tuple[str, ...]
    reads: set[str]
    operations: int


def forward_lines(operation: str) -> list[Line]:
    text = source("ops", f"{operation}.py")
    return [read_line(text, node) for node in statements(functions(text)["forward"])]


def statements(function: ast.FunctionDef) -> list[ast.stmt]:
    """The body without docstring and return."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[:-1]


def read_line(text: str, node: ast.stmt) -> Line:
    assert isinstance(node, ast.Assign), f"a forward assigns, line {node.lineno} does not"
    assert len(node.targets) == 1
    sets = tuple(part.id for part in ast.walk(node.targets[0]) if isinstance(part, ast.Name))
    segment = " ".join((ast.get_source_segment(text, node) or "").split())
    return Line(segment, sets, differentiable_reads(node.value), count_operations(node.value))


def differentiable_reads(node: ast.expr) -> set[str]:
    """The names whose values flow on: not those that are only compared, or asked for their shape.

    np.real cuts too: what is taken from it is a constant (the largest logit, which cancels).
    """
    match node:
        case (
            ast.Attribute(attr="shape") | ast.Compare() | ast.Call(func=ast.Attribute(attr="real"))
        ):
            return set()
        case ast.IfExp():
            return differentiable_reads(node.body) | differentiable_reads(node.orelse)
        case ast.Name():
            return {node.id}
        case _:
            parts = (
                differentiable_reads(p)
                for p in ast.iter_child_nodes(node)
                if isinstance(p, ast.expr)
            )
            return {name for part in parts for name in part}


def count_operations(node: ast.expr) -> int:
    """Products, sums, calls and the like in an expression; a choice counts its larger side."""
    if isinstance(node, ast.IfExp):
        return max(count_operations(node.body), count_operations(node.orelse))
    own = isinstance(node, ast.BinOp | ast.Call | ast.Compare | ast.Subscript)
    children = (p for p in ast.iter_child_nodes(node) if isinstance(p, ast.expr))
    return own + sum(count_operations(child) for child in children)


def flowing(operation: str) -> set[str]:
    """The names of a forward through which a gradient flows, from its float arguments onwards."""
    names = {arg for case in CASES if case.operation == operation for arg in case.differentiable}
    for line in forward_lines(operation):
        if line.reads & names:
            names |= {name for name in line.sets if not name.startswith("saved")}
    return names


def line_backward(operation: str) -> str:
    """The name of the backward that goes line for line."""
    found = functions(source("ops", f"{operation}.py"))
    return "backward_steps" if "backward_steps" in found else "backward"


def quotes(operation: str) -> list[tuple[str, set[str]]]:
    """In the backward: each comment on a line of its own, with the d-names set below it."""
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


def array_lines(text: str) -> Iterator[tuple[str, int]]:
    """Each statement of a forward or backward that makes an array, and its last line."""
    for name, function in functions(text).items():
        if not name.endswith(("forward", "backward", "backward_steps")):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Assign | ast.AugAssign):
                value = ast.unparse(node.value)
                plain = value in ("saved", "self.ops") or not makes_an_array(node.value)
                if not plain:
                    assert node.end_lineno is not None
                    yield value, node.end_lineno


def makes_an_array(node: ast.expr) -> bool:
    """Array code calls, multiplies, or renames a gradient; the rest unpacks and counts."""
    text = ast.unparse(node)
    if isinstance(node, ast.Name):
        return node.id.startswith("d")
    scalars = ("max(", "self.", "Gradients()", "HIDDEN", "head_size **", "q.shape", "tokens.shape")
    return isinstance(node, ast.BinOp | ast.Call | ast.IfExp | ast.UnaryOp | ast.Compare) and (
        not text.startswith(scalars) or "forward(" in text or "backward(" in text
    )


def calls(function: ast.FunctionDef, kind: str) -> list[str]:
    """The operations that a method of the model calls, in the order of its lines."""
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
    """Follows the forwards and backwards of one file line by line while they run.

    arrays: every array they made, by function and name. Each line's shape comment is held against
    what the line made; a letter must mean the same size throughout.
    """

    def __init__(self, *parts: str) -> None:
        self.file = str(PACKAGE.joinpath(*parts))
        self.lines = source(*parts).splitlines()
        self.arrays: dict[str, dict[str, np.ndarray]] = {}
        self.letters: dict[str, int] = {}
        self.checked = 0

    def run(self, job: Callable[[], Any]) -> "Watch":
        before = sys.gettrace()
        sys.settrace(self.enter)
        try:
            job()
        finally:
            sys.settrace(before)
        return self

    def enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        name = frame.f_code.co_name
        if frame.f_code.co_filename != self.file or not re.search("forward|backward", name):
            return None
        last = frame.f_lineno

        def each(frame: FrameType, event: str, arg: Any) -> Any:
            nonlocal last
            self.look(frame, last)
            last = frame.f_lineno
            return each

        return each

    def look(self, frame: FrameType, number: int) -> None:
        """The line `number` has just run in this frame."""
        known = self.arrays.setdefault(frame.f_code.co_name, {})
        for name, value in frame.f_locals.items():
            if isinstance(value, np.ndarray | np.floating):
                known[name] = np.asarray(cast(Any, value))
        text = self.lines[number - 1]
        match = re.search(r"^\s*(\w+(?:, \w+)*)\s*\+?= .*# (\(.*\))$", text)
        if match is None:
            return
        names, shapes = match.group(1).split(", "), re.findall(r"\(([^()]*)\)", match.group(2))
        for name, shape in zip(names, itertools.cycle(shapes), strict=False):
            value = frame.f_locals.get(name)
            # Beside an output stands what was saved for its backward, a tuple.
            if isinstance(value, np.ndarray | np.floating):
                self.hold(np.asarray(cast(Any, value)).shape, shape, f"{name} in {text.strip()}")

    def hold(self, shape: tuple[int, ...], comment: str, where: str) -> None:
        self.checked += 1
        letters = [part.strip() for part in comment.split(",") if part.strip()]
        sizes = list(shape)
        if letters[:1] == ["..."]:
            letters, sizes = letters[1:], sizes[len(sizes) - len(letters) + 1 :]
        assert len(letters) == len(sizes), f"{where} is {shape}"
        for letter, size in zip(letters, sizes, strict=True):
            match = re.fullmatch(r"(\d*)([A-Z]?)", letter)
            assert match, f"{letter} is no shape, in {where}"
            times = int(match.group(1) or 1)
            if match.group(2):
                times *= self.letters.setdefault(match.group(2), size // times)
            assert size == times, f"{where} is {shape}; the letters are {self.letters}"
