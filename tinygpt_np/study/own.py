"""The user's own functions as a target: FILE.py:forward,backward.

They are called with random arrays, so their shapes must be known: from the first line of forward's
docstring, as in ops/, or from --args, in the same words.
"""

import ast
import importlib.util
import inspect
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tinygpt_np.config import generator
from tinygpt_np.gradcheck.cases import SIZES
from tinygpt_np.gradcheck.function_check import differentiable
from tinygpt_np.ops.contract import Array, Count, parse
from tinygpt_np.study.source import Function, StudyError, find
from tinygpt_np.study.target import Target
from tinygpt_np.study.trace import Names

FORM = "FILE.py:forward,backward"
# Sizes for letters that the operations here do not use, and for the axes that ... stands for.
OTHER_SIZES, ANY_AXES = (9, 10, 12, 13, 14, 15, 16, 17, 18, 19), (2, 3)


def own(text: str, described: str | None = None, seed: int = 0) -> Target:
    """The target that FILE.py:forward,backward names. described: its arguments, as of --args."""
    path, names = taken_apart(text)
    module = imported(path)
    where = path.name
    with tokenize.open(path) as file:  # In the encoding that the file says it has.
        source = file.read()
    forward, *backwards = (find(source, name, where) for name in names)
    for backward in backwards:
        if len(backward.arguments) < 2:
            place = f"{where}: {backward.name}"
            raise StudyError(f"{place} must take the gradient of the output, and what was saved")
    args = arguments(getattr(module, forward.name), where, described, seed)
    wrt = with_gradients(differentiable(args, None), backwards[-1])
    return Target(
        text, path.stem, "own", where, module.__doc__ or "", forward, tuple(backwards),
        dict(vars(module)), args, wrt, seed,
        functions=tuple(getattr(module, name) for name in names),
    )  # fmt: skip


def with_gradients(floats: tuple[str, ...], backward: Function) -> tuple[str, ...]:
    """Of the arrays of floats those that have a gradient: all, or those whose d… are returned."""
    value = backward.returned.value
    parts = value.elts if isinstance(value, ast.Tuple) else [value]
    named = {part.id.removeprefix("d") for part in parts if isinstance(part, ast.Name)}
    if len(parts) < len(floats) and len(named) == len(parts) and named <= {*floats}:
        # A mask, for one, has none.
        return tuple(name for name in floats if name in named)
    return floats


def taken_apart(text: str) -> tuple[Path, list[str]]:
    """The file, and the names of forward and its backward or backwards."""
    file, colon, functions = text.rpartition(":")
    names = [name.strip() for name in functions.split(",")]
    if not colon or len(names) not in (2, 3) or not all(name.isidentifier() for name in names):
        raise StudyError(f"a file of your own is given as {FORM}, not {text}")
    path = Path(file)
    if not path.is_file():
        raise StudyError(f"there is no file {file}")
    return path, names


def imported(path: Path) -> ModuleType:
    """The module in a file, which may import its neighbours."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise StudyError(f"{path} must be a Python file, with a name that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        kind = type(error).__name__
        raise StudyError(f"{path} cannot be imported: {kind}: {error}") from None
    finally:
        sys.path.pop(0)
    return module


def arguments(function: Any, where: str, described: str | None, seed: int) -> Names:
    """Random arguments of the shapes described, and the defaults of the rest."""
    line = (inspect.getdoc(function) or "").partition("\n")[0]
    found = parse(line.partition(" -> ")[0] if described is None else described)
    names = list(inspect.signature(function).parameters)
    if found is None or not {each.name for each in found} <= {*names}:
        given = f"its docstring begins {line!r}" if described is None else f"not {described!r}"
        raise StudyError(
            f"{where}: the arguments of {function.__name__} ({', '.join(names)}) must be described "
            f"in the first line of its docstring, or by --args, in a form like "
            f"'x (N, C), weight (C, 3), ids (N,) integers in [0, V)', with capital letters or "
            f"numbers for sizes; {given}"
        )
    drawn = dict(draw(found, seed))
    defaults = {n: p.default for n, p in inspect.signature(function).parameters.items()}
    missing = [n for n in names if n not in drawn and defaults[n] is inspect.Parameter.empty]
    if missing:
        raise StudyError(
            f"{where}: {function.__name__} also takes {', '.join(missing)}: describe it"
        )
    return {name: drawn.get(name, defaults[name]) for name in names}


def draw(described: list[Array | Count], seed: int) -> Iterator[tuple[str, Any]]:
    """Values of order one, or integers, of the shapes described; each letter is one size."""
    rng, sizes = generator(seed, "data"), dict(SIZES)
    others = iter(OTHER_SIZES)
    for each in described:
        if isinstance(each, Count):
            yield each.name, sizes[each.letter]
            continue
        for letter in [letter for _, letter in each.axes] + list(each.end):
            if letter and letter not in sizes:
                sizes[letter] = next(others)
        shape = tuple(times * (sizes[letter] if letter else 1) for times, letter in each.axes)
        shape = ANY_AXES + shape if each.any_before else shape
        if each.end:
            yield each.name, rng.integers(max(each.lowest, 0), sizes[each.end], shape)
        else:
            yield each.name, np.asarray(rng.standard_normal(shape))
