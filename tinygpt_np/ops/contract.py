"""Check the arguments of every operation against the first line of its docstring, the contract.

The contract names every argument in order, followed by an arrow and the result:

    x (N, 3C)                      an array of float32, float64 or complex128
    ids (N,) integers in [0, V)    an array of integers in that range; `or -1` also allows -1
    positions (T,) integers        an array of integers
    batch B                        a positive integer that divides N; n_head H divides C, n_kv_head
                                   J divides H, and H + 2J divides E; J is H unless it is given
    epsilon number                 a positive int or float; a NumPy scalar would set the dtype
    interleaved flag               True or False

A letter is a size of at least 1, a number is that size, and `...` is any number of axes; each has
one value per call. `or None` allows None. `saved` carries the name of its operation and the shape
of the output, so a backward can refuse another operation's `saved` and a gradient of another shape.
"""

import functools
import inspect
import math
import re
import string
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

GUARDED = ("forward", "backward", "backward_steps", "split_heads", "merge_heads", "group_heads")
# NumPy scalars are treated as arrays of shape ().
ARRAYS: Any = (np.ndarray, np.generic)
# The characters of the dtypes, and how an error calls them.
FLOATS = ("fdD", "an array of float32, float64 or complex128")
REAL_NUMBER = ("fd", "a float or an array of float32 or float64")
INTEGERS = (np.typecodes["AllInteger"], "an array of integers")
LETTERS = string.ascii_uppercase
# The letter that a count divides, and the letter of the quotient: N = B·T, C = H·D, H = J·R.
PARTS = {"B": ("N", "T"), "H": ("C", "D"), "J": ("H", "R")}

SIZE = r"(?:\d*[A-Z]|\d+)"
SHAPE = rf"\((?:\.\.\.|(?:\.\.\., )?{SIZE}(?:, {SIZE})*,?|)\)"
INTEGER = r" integers(?: in \[0, ([A-Z])\)( or -1)?)?"
ARGUMENT = rf"(\w+) (?:(number|flag)|(?:([BHJ])|({SHAPE})({INTEGER})?)( or None)?)"

# The size of each letter, and the argument it comes from.
Sizes = dict[str, tuple[Any, str]]


class SavedValues(tuple[Any, ...]):
    """Values saved by a forward. operation: its name. shape: the output's shape."""

    operation: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Array:
    """An array argument.

    axes: pairs such as (3, "C") for 3C. any_before: whether the shape starts with "...". kind: its
    dtypes. end: for integers, the letter of their exclusive upper bound, or "".
    """

    name: str
    shape: str
    axes: tuple[tuple[int, str], ...]
    any_before: bool
    kind: tuple[str, str]
    end: str
    lowest: int
    optional: bool

    def check(self, value: Any, sizes: Sizes) -> None:
        """Raise unless an argument has this dtype and shape."""
        check_kind(self.name, value, self.kind)
        if not self.fits(value.shape, sizes):
            known = ", ".join(
                f"{letter} ≥ 1" if size == 0 else f"{letter} = {size} as in {source}"
                for letter, (size, source) in sizes.items()
                if letter in self.shape and (size == 0 or source != self.name)
            )
            expected = f"{self.shape} with {known}" if known else self.shape
            raise ValueError(f"{self.name} must be {expected}, not {value.shape}")

    def fits(self, shape: tuple[int, ...], sizes: Sizes) -> bool:
        """Return whether a shape is the one stated; record the sizes of new letters."""
        before = len(shape) - len(self.axes)
        if before < 0 or (before and not self.any_before):
            return False
        if self.any_before:
            given = shape[:before]
            if sizes.setdefault("...", (given, self.name))[0] != given:
                return False
        for size, (times, letter) in zip(shape[before:], self.axes, strict=True):
            if letter and letter not in sizes:
                sizes[letter] = (size // times, self.name)
            unit = sizes[letter][0] if letter else 1
            if size != times * unit or size == 0:
                return False
        return True


@dataclass(frozen=True)
class Count:
    """An integer argument that splits an axis into parts. letter: B, H or J."""

    name: str
    letter: str
    optional: bool = False

    def check(self, value: Any, sizes: Sizes) -> None:
        """Raise unless an argument is a positive divisor of the size it splits."""
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
            raise TypeError(f"{self.name} must be a positive integer, not {type(value).__name__}")
        if value < 1:
            raise ValueError(f"{self.name} must be a positive integer, not {value}")
        sizes[self.letter] = (value, self.name)
        total, part = PARTS[self.letter]
        if total in sizes:
            size, source = sizes[total]
            if size % value:
                expected = f"divide {total} = {size} as in {source}"
                raise ValueError(f"{self.name} must {expected}, and {value} does not")
            sizes[part] = (size // value, f"{total}/{self.letter}")


@dataclass(frozen=True)
class Number:
    """A positive int or float."""

    name: str
    optional = False

    def check(self, value: Any, sizes: Sizes) -> None:
        """Raise unless an argument is positive and finite."""
        if type(value) not in (int, float):
            raise TypeError(f"{self.name} must be a positive number, not {type(value).__name__}")
        if not 0 < value < math.inf:
            raise ValueError(f"{self.name} must be a positive number, not {value}")


@dataclass(frozen=True)
class Flag:
    """A choice."""

    name: str
    optional = False

    def check(self, value: Any, sizes: Sizes) -> None:
        """Raise unless an argument is True or False."""
        if not isinstance(value, (bool, np.bool)):
            raise TypeError(f"{self.name} must be True or False, not {type(value).__name__}")


Argument = Array | Count | Number | Flag


def guard(module: ModuleType) -> None:
    """Make every function of an operation check its arguments by the contract it must have."""
    if sys.flags.optimize > 1:  # python -OO removes docstrings.
        return
    operation = module.__name__.rpartition(".")[2]
    for name in GUARDED:
        if function := getattr(module, name, None):
            setattr(module, name, guarded(function, operation))


def unguarded(operations: Any) -> Any:
    """Return the operations of a module without their checks, for inputs known to be valid.

    A check takes a few microseconds, as long as an operation on a single token.
    """

    def bare(operation: Any) -> SimpleNamespace:
        found = {name: getattr(operation, name, None) for name in GUARDED}
        return SimpleNamespace(**{n: inspect.unwrap(f) for n, f in found.items() if f is not None})

    return SimpleNamespace(**{name: bare(getattr(operations, name)) for name in operations.__all__})


def guarded(function: Callable[..., Any], operation: str) -> Callable[..., Any]:
    """Return a function that checks its arguments before it runs."""
    where = f"{operation}.{function.__name__}"
    signature = inspect.signature(function)
    names = [name for name in signature.parameters if name != "saved"]
    arguments = read(function, where, names)
    least = sum(each.default is each.empty for each in signature.parameters.values())
    most = len(signature.parameters)
    takes_saved, gives_saved = "saved" in signature.parameters, function.__name__ == "forward"

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            if kwargs or not least <= len(args) <= most:  # Binding is slow.
                bound = signature.bind(*args, **kwargs)
                bound.apply_defaults()
                args = bound.args
            if takes_saved:
                check_gradient(operation, names[0], *args)
            else:
                check_arguments(arguments, args)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{where}: {error}") from None
        returned = function(*args)
        if not gives_saved:
            return returned
        output, saved = returned[0], SavedValues(returned[1])
        saved.operation, saved.shape = operation, output.shape
        return output, saved

    return checked


def read(function: Callable[..., Any], where: str, names: list[str]) -> list[Argument]:
    """Return the arguments in the contract of a function; they must have these names, in order."""
    line = (function.__doc__ or "").partition("\n")[0]
    takes, _, gives = line.partition(" -> ")
    arguments = parse(takes)
    if not gives or arguments is None or [each.name for each in arguments] != names:
        expected = f"{', '.join(names)} in a form like 'x (N, C), bias (C,) or None -> y (N, C)'"
        raise ValueError(f"{where}: the docstring must begin with {expected}, not {line!r}")
    return arguments


def parse(takes: str) -> list[Argument] | None:
    """Return the arguments described before the arrow, or None if the text is not a contract."""
    found: list[Argument] = []
    for part in re.split(r", (?=\w+ (?:[(A-Z]|number|flag))", takes):
        match = re.fullmatch(ARGUMENT, part)
        if match is None:
            return None
        name, other, count, shape, integers, end, low, none = match.groups()
        if other:
            found.append(Number(name) if other == "number" else Flag(name))
            continue
        if count:
            found.append(Count(name, count, bool(none)))
            continue
        sizes = re.findall(SIZE, shape.replace("...", ""))
        axes = tuple((int(size.rstrip(LETTERS) or 1), size.lstrip("0123456789")) for size in sizes)
        lowest = -1 if low else 0
        kind = INTEGERS if integers else FLOATS
        found.append(Array(name, shape, axes, "..." in shape, kind, end or "", lowest, bool(none)))
    return found


def check_arguments(arguments: list[Argument], values: tuple[Any, ...]) -> None:
    """Raise unless the values agree with the contract and with each other."""
    sizes: Sizes = {}
    for each, value in zip(arguments, values, strict=False):
        if value is not None or not each.optional:
            each.check(value, sizes)
    if "E" in sizes:
        check_heads(sizes)
    for each, value in zip(arguments, values, strict=False):
        if isinstance(each, Array) and each.end:
            check_range(each.name, value, each.lowest, sizes[each.end][0])


def check_heads(sizes: Sizes) -> None:
    """Raise ValueError unless E columns are H heads of queries, J of keys and J of values."""
    (width, name), (n_head, source) = sizes["E"], sizes["H"]
    n_kv_head, other = sizes.get("J", sizes["H"])
    if width % (n_head + 2 * n_kv_head):
        known = f"H = {n_head} as in {source}, J = {n_kv_head} as in {other}"
        raise ValueError(f"{name} must have (H + 2J)·D columns with {known}, not {width}")


def check_gradient(operation: str, name: str, gradient: Any, saved: Any) -> None:
    """Raise unless `saved` is of this operation and the gradient has the shape of the output."""
    expected = f"saved must be what {operation}.forward returned, not"
    if not isinstance(saved, SavedValues):
        raise TypeError(f"{expected} {type(saved).__name__}")
    if saved.operation != operation:
        raise ValueError(f"{expected} what {saved.operation}.forward returned")
    if saved.shape == () and isinstance(gradient, float):
        return
    check_kind(name, gradient, FLOATS if saved.shape else REAL_NUMBER)
    if gradient.shape != saved.shape:
        raise ValueError(f"{name} must be {saved.shape} like {name[1:]}, not {gradient.shape}")


def check_kind(name: str, value: Any, kind: tuple[str, str]) -> None:
    """Raise TypeError unless a value is an array of one of these dtypes."""
    codes, expected = kind
    if not isinstance(value, ARRAYS) or value.dtype.char not in codes:
        given = value.dtype if isinstance(value, ARRAYS) else type(value).__name__
        raise TypeError(f"{name} must be {expected}, not {given}")


def check_range(name: str, ids: np.ndarray, lowest: int, end: int) -> None:
    """Raise ValueError with the index of the first integer that is not in [lowest, end)."""
    wrong = (ids < lowest) | (ids >= end)
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        first = f"{name}[{', '.join(map(str, place))}] is {ids[place]}"
        raise ValueError(f"{name} must be in [{lowest}, {end}), but {first}")
