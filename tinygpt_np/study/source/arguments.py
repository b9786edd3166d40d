"""Read descriptions of arguments, and draw random arguments that fit.

A description is the first line of a docstring, as in ops/, or the value of --args:

    x (N, C), W (C, 4H), ids (N,) integers in [0, V), params {W1 (C, K), b1 (K,)}, stride 2

`or -1` after a range of integers also allows -1, `in (0, 1)` is the range of floats, `booleans` are
a mask, and a literal is a constant. Docstrings with a line for each argument are read too: those of
numpydoc, of Google, and lists such as `- x: data of shape (N, D)`.
"""

import ast
import inspect
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygpt_np.config import generator
from tinygpt_np.gradcheck.calls import SELF
from tinygpt_np.gradcheck.cases import SIZES
from tinygpt_np.study.source.parse import StudyError

# The letters that have the sizes of the gradient checks.
LETTERS = "BTHDNCKV"
# The sizes of the axes that ... stands for.
ANY_AXES = (2, 3)
NAME, NUMBER = r"[^\W\d]\w*", r"-?\d+\.?\d*"
SIZE = rf"(?:\d*\s?\*?\s?{NAME}'?|\d+)"
SHAPE = rf"\((?:\.\.\.|(?:\.\.\., ?)?{SIZE}(?:, ?{SIZE})*,?|)\)"
RANGE = rf"integers in \[0, ?({NAME}|\d+)\)( or -1)?"
FLOATS = rf"in \(({NUMBER}), ?({NUMBER})\)"
ARRAY = re.compile(rf"({NAME}) ({SHAPE})(?: (?:{RANGE}|{FLOATS}|(booleans)))?(?: or None)?")
COUNT = re.compile(rf"({NAME}) ([BH])")
# A line of a docstring that describes an argument, with its name and the rest.
ENTRY = re.compile(rf"\s*(?:[-*]\s+)?({NAME})(?:\s*\(([^)]*\)?[^)]*)\))?\s*(?::|--|—)\s*(.*)")
# Integers in a docstring that has no fixed form: 0 <= y[i] < C, in the range [0, V).
LABELS = re.compile(
    rf"0\s*<=?\s*\w+(?:\[\w+\])?\s*<\s*({NAME}|\d+)|\[0, ?({NAME}|\d+)(?:\)| ?- ?1\])"
)
IGNORED = re.compile(r"(?:or|and|except|by) -1|-1 (?:is|are|for|means?|marks?)")


@dataclass(frozen=True)
class Described:
    """An array argument.

    axes: pairs such as (4, "H") for 4H. any_before: whether the shape starts with "...". end: for
    integers, their exclusive upper bound; "" otherwise. may_be_ignored: whether -1 is allowed.
    between: the range of floats, if it is given. is_mask: whether it holds booleans.
    """

    axes: tuple[tuple[int, str], ...]
    any_before: bool = False
    end: str = ""
    may_be_ignored: bool = False
    between: tuple[float, float] | None = None
    is_mask: bool = False


@dataclass(frozen=True)
class Constant:
    """An argument with a given value."""

    value: Any


@dataclass(frozen=True)
class Size:
    """An integer argument: the size that a letter stands for."""

    letter: str


Description = Described | Constant | Size | dict[str, Any]


def draw_arguments(
    functions: Sequence[Callable[..., Any]],
    file: str,
    given: str | None,
    seed: int,
    sizes: Mapping[str, int] | None = None,
) -> list[dict[str, Any]]:
    """Return random arguments of the described shapes for each function, and its defaults.

    given: descriptions that complete or replace those of the docstrings. sizes: those of some
    letters. Raises StudyError.
    """
    drawing, values = Draw(seed, sizes or {}), list[dict[str, Any]]()
    try:
        others, wrong = parse(given or ""), ""
    except ValueError as error:
        others, wrong = dict[str, Description](), str(error)
    known = [defaults_of(function) for function in functions]
    unknown = [name for name in others if not any(name in each for each in known)]
    wrong = wrong or "".join(f"there is no argument {name}" for name in unknown[:1])
    for function, defaults in zip(functions, known, strict=True):
        found = described(inspect.getdoc(function) or "", defaults)
        found |= {name: each for name, each in others.items() if name in defaults}
        missing = [
            n for n, d in defaults.items() if d is inspect.Parameter.empty and n not in found
        ]
        wrong = wrong or f"not described: {', '.join(missing)}" if missing or wrong else ""
        if wrong:
            raise StudyError(
                f"{file}: the docstring of {function.__name__}({', '.join(defaults)}), or --args, "
                "must describe its arguments in a form like 'x (N, C), weight (C, 3), ids (N,) "
                "integers in [0, V), params {W (C, K)}, stride 2', with letters or numbers for "
                f"sizes; {wrong}"
            )
        values.append(defaults | {name: drawing.draw(each) for name, each in found.items()})
    return values


def defaults_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the defaults of the arguments of a function or class; Parameter.empty for none."""
    parameters = inspect.signature(function).parameters
    return {name: p.default for name, p in parameters.items() if name != SELF}


def described(docstring: str, names: Collection[str]) -> dict[str, Description]:
    """Return the arguments that the first line of a docstring describes, or else the others."""
    try:
        found = parse(docstring.partition("\n")[0].partition(" -> ")[0])
        return found if {*found} <= {*names} else {}
    except ValueError:
        return entries(docstring, names)


def parse(text: str) -> dict[str, Description]:
    """Return the arguments that a text describes; raise ValueError at what it cannot read."""
    found: dict[str, Description] = {}
    for part in filter(None, split(text)):
        name, _, rest = part.partition(" ")
        if name in found:
            raise ValueError(f"{name} is described twice")
        found[name] = argument(part, rest.strip())
    return found


def split(text: str) -> Iterator[str]:
    """Yield the parts of a text between commas that are not in brackets."""
    depth = start = 0
    for place, character in enumerate(f"{text},"):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth <= 0:
            # The range of integers, [0, V), closes with another bracket, which is counted too.
            yield text[start:place].strip()
            start = place + 1
    yield text[start:].strip()


def argument(part: str, rest: str) -> Description:
    """Return the description of one argument."""
    if match := ARRAY.fullmatch(part):
        _, shape, end, ignored, low, high, mask = match.groups()
        axes, any_before = axes_of(shape)
        between = (float(low), float(high)) if low else None
        return Described(axes, any_before, end or "", bool(ignored), between, bool(mask))
    if match := COUNT.fullmatch(part):
        return Size(match.group(2))
    if rest.startswith("{") and rest.endswith("}"):
        return parse(rest[1:-1])
    try:
        return Constant(ast.literal_eval(rest))
    except (ValueError, SyntaxError):
        raise ValueError(f"{part!r} is no description of an argument") from None


def axes_of(shape: str) -> tuple[tuple[tuple[int, str], ...], bool]:
    """Return the axes of a shape, and whether it starts with "..."."""
    sizes = [size.strip() for size in shape.strip("()").split(",") if size.strip()]
    any_before = sizes[:1] == ["..."]
    matches = [re.fullmatch(r"(\d*)\s?\*?\s?(.*)", size) for size in sizes[any_before:]]
    return tuple((int(m.group(1) or 1), m.group(2)) for m in matches if m), any_before


def entries(docstring: str, names: Collection[str]) -> dict[str, Description]:
    """Return the arguments that the lines of a docstring describe, each by name and shape."""
    found: dict[str, Description] = {}
    texts, current = dict[str, str](), ""
    for line in docstring.splitlines():
        match = ENTRY.fullmatch(line)
        if match is not None:
            current = match.group(1) if match.group(1) in names else ""
            line = " ".join(filter(None, match.groups()[1:]))
        elif re.match(r"\s*(Returns?|Outputs?)\b", line):
            current = ""
        if current:
            texts[current] = f"{texts.get(current, '')} {line.strip()}"
    for name, text in texts.items():
        # In words, such as (size of layer, number of examples), too.
        shapes = re.findall(r"\((\w[\w ']*(?:, *\w[\w ']*)*,?)\)", text)
        shapes = [each for each in shapes if "," in each]
        if shapes:
            axes, _ = axes_of(shapes[0])
            label = LABELS.search(text)
            end = next(filter(None, label.groups()), "") if label else ""
            found[name] = Described(axes, end=end, may_be_ignored=bool(IGNORED.search(text)))
    return found


class Draw:
    """Random arguments; each letter has one size, and all sizes differ, except given ones."""

    def __init__(self, seed: int, sizes: Mapping[str, int]) -> None:
        self.rng = generator(seed, "data")
        self.sizes = {**{name: SIZES[name] for name in LETTERS}, **sizes}
        # The sizes of other names.
        self.others = (size for size in itertools.count(9) if size != SIZES["V"])

    def size(self, name: str) -> int:
        """Return the size that a letter or another name stands for."""
        if name.isdecimal():
            return int(name)
        if name not in self.sizes:
            # HH and WW are the sizes of a window in H and W.
            window = len(name) == 2 and name[0] == name[1]
            self.sizes[name] = 2 + (name[0] == "W") if window else next(self.others)
        return self.sizes[name]

    def draw(self, each: Description) -> Any:
        """Return a value of order one, integers, booleans or a constant."""
        if isinstance(each, dict):
            return {name: self.draw(part) for name, part in each.items()}
        if isinstance(each, Constant):
            return each.value
        if isinstance(each, Size):
            return self.size(each.letter)
        sizes = [times * (self.size(letter) if letter else 1) for times, letter in each.axes]
        shape = (*ANY_AXES, *sizes) if each.any_before else tuple(sizes)
        if each.end:
            return self.integers(shape, self.size(each.end), each.may_be_ignored)
        if each.is_mask:
            return self.rng.random(shape) < 0.7
        if each.between is not None:
            low, high = each.between
            return np.asarray(low + (high - low) * self.rng.uniform(0.1, 0.9, shape))
        return np.asarray(self.rng.standard_normal(shape))

    def integers(self, shape: tuple[int, ...], end: int, may_be_ignored: bool) -> np.ndarray:
        """Return integers below `end`: one repeats, one does not occur, and some are ignored."""
        drawn = self.rng.integers(0, max(end - 1, 1), shape)
        flat = drawn.reshape(-1)
        flat[1:2] = flat[:1]
        if may_be_ignored:
            flat[2:3] = -1
        # The one that does not occur is not always the last.
        return np.where(drawn < 0, drawn, (drawn + self.rng.integers(end)) % end)
