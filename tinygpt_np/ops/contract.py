"""Holds what an operation is given against the first line of its docstring, before it runs.

That line is the contract. It names every argument in order, then an arrow and the result:

    x (N, 3C)                      an array of float32, float64 or complex128
    ids (N,) integers in [0, V)    an array of integers in that range; `or -1` admits -1 too
    batch B                        a positive integer that divides N; n_head H divides C

A letter is a size, 1 or more, a number is itself, and `...` is any axes; each is the same wherever
it stands. `or None` admits None. What a forward saves remembers whose it is and the shape of the
output, and a backward takes only that, with a gradient of that shape.
"""

import functools
import inspect
import re
import string
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

GUARDED = ("forward", "backward", "backward_steps", "split_heads", "merge_heads")
# NumPy's numbers count as arrays of shape ().
ARRAYS: Any = (np.ndarray, np.generic)
# Dtypes by their characters, and how they are called.
FLOATS = ("fdD", "an array of float32, float64 or complex128")
REAL_NUMBER = ("fd", "a float or an array of float32 or float64")
INTEGERS = (np.typecodes["AllInteger"], "an array of integers")
LETTERS = string.ascii_uppercase
# What a number of parts divides, and the size of a part: N = B·T, C = H·D.
PARTS = {"B": ("N", "T"), "H": ("C", "D")}

SIZE = r"(?:\d*[A-Z]|\d+)"
SHAPE = rf"\((?:\.\.\.|(?:\.\.\., )?{SIZE}(?:, {SIZE})*,?|)\)"
ARGUMENT = rf"(\w+) (?:([BH])|({SHAPE})(?: integers in \[0, ([A-Z])\)( or -1)?)?( or None)?)"

# Of each letter its size, and the argument that gave it.
Sizes = dict[str, tuple[Any, str]]


class SavedValues(tuple[Any, ...]):
    """What a forward saved. operation: its name. shape: that of the output."""

    operation: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Array:
    """axes: such as (3, "C") for 3C. end: the letter that integers lie below, "" for floats."""

    name: str
    shape: str
    axes: tuple[tuple[int, str], ...]
    any_before: bool
    end: str
    lowest: int
    optional: bool

    def hold(self, value: Any, sizes: Sizes) -> None:
        check_kind(self.name, value, INTEGERS if self.end else FLOATS)
        if not self.fits(value.shape, sizes):
            known = ", ".join(
                f"{letter} ≥ 1" if size == 0 else f"{letter} = {size} as in {source}"
                for letter, (size, source) in sizes.items()
                if letter in self.shape and (size == 0 or source != self.name)
            )
            wanted = f"{self.shape} with {known}" if known else self.shape
            raise ValueError(f"{self.name} must be {wanted}, not {value.shape}")

    def fits(self, shape: tuple[int, ...], sizes: Sizes) -> bool:
        """Whether a shape is the one stated. Notes the sizes of letters that are new."""
        before = len(shape) - len(self.axes)
        if before < 0 or (before and not self.any_before):
            return False
        if self.any_before:
            given = shape[:before]
            if sizes.setdefault("...", (given, self.name))[0] != given:
                return False
        for axis, (times, letter) in enumerate(self.axes, before):
            size = shape[axis]
            if not letter:  # A number stands for itself.
                if size != times:
                    return False
                continue
            if letter not in sizes:
                sizes[letter] = (size // times, self.name)
            if size != times * sizes[letter][0] or size == 0:
                return False
        return True


@dataclass(frozen=True)
class Count:
    """letter: B or H."""

    name: str
    letter: str
    end: str = ""
    optional: bool = False

    def hold(self, value: Any, sizes: Sizes) -> None:
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
            raise TypeError(f"{self.name} must be a positive integer, not {type(value).__name__}")
        if value < 1:
            raise ValueError(f"{self.name} must be a positive integer, not {value}")
        whole, part = PARTS[self.letter]
        size, source = sizes[whole]
        if size % value:
            wanted = f"divide {whole} = {size} as in {source}"
            raise ValueError(f"{self.name} must {wanted}, and {value} does not")
        sizes[self.letter] = (value, self.name)
        sizes[part] = (size // value, f"{whole}/{self.letter}")


def guard(module: ModuleType) -> None:
    """Puts before each function of an operation the check of what it is given.

    Raises ValueError if a docstring begins otherwise than said above.
    """
    if sys.flags.optimize > 1:  # python -OO takes the docstrings away, and the contracts with them.
        return
    operation = module.__name__.rpartition(".")[2]
    for name in GUARDED:
        if function := getattr(module, name, None):
            setattr(module, name, guarded(function, operation))


def unguarded(operations: Any) -> Any:
    """The operations of a module without their checks, for who has checked what goes in: a check
    takes a few microseconds, and so does an operation on one token."""

    def bare(operation: Any) -> SimpleNamespace:
        found = {name: getattr(operation, name, None) for name in GUARDED}
        return SimpleNamespace(**{n: inspect.unwrap(f) for n, f in found.items() if f is not None})

    return SimpleNamespace(**{name: bare(getattr(operations, name)) for name in operations.__all__})


def guarded(function: Callable[..., Any], operation: str) -> Callable[..., Any]:
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
            if kwargs or not least <= len(args) <= most:  # Slow, so only where it is needed.
                bound = signature.bind(*args, **kwargs)
                bound.apply_defaults()
                args = bound.args
            if takes_saved:
                hold_gradient(operation, names[0], *args)
            else:
                hold_arguments(arguments, args)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{where}: {error}") from None
        returned = function(*args)
        if not gives_saved:
            return returned
        output, saved = returned[0], SavedValues(returned[1])
        saved.operation, saved.shape = operation, output.shape
        return output, saved

    return checked


def read(function: Callable[..., Any], where: str, names: list[str]) -> list[Array | Count]:
    """The arguments that a docstring begins with, which must be those of these names."""
    line = (function.__doc__ or "").partition("\n")[0]
    takes, _, gives = line.partition(" -> ")
    arguments = parse(takes)
    if not gives or arguments is None or [each.name for each in arguments] != names:
        wanted = f"{', '.join(names)} in a form like 'x (N, C), bias (C,) or None -> y (N, C)'"
        raise ValueError(f"{where}: the docstring must begin with {wanted}, not {line!r}")
    return arguments


def parse(takes: str) -> list[Array | Count] | None:
    """The arguments that stand in words before the arrow, or None if they are no such words."""
    found = [re.fullmatch(ARGUMENT, part) for part in re.split(r", (?=\w+ [(A-Z])", takes)]
    return None if None in found else [argument(*match.groups()) for match in found if match]


def argument(
    name: str, count: str | None, shape: str, end: str | None, low: str | None, none: str | None
) -> Array | Count:
    if count:
        return Count(name, count)
    sizes = re.findall(SIZE, shape.replace("...", ""))
    axes = tuple((int(size.rstrip(LETTERS) or 1), size.lstrip("0123456789")) for size in sizes)
    return Array(name, shape, axes, "..." in shape, end or "", -1 if low else 0, bool(none))


def hold_arguments(arguments: list[Array | Count], values: tuple[Any, ...]) -> None:
    """Raises unless what a function is given agrees with its docstring, and with itself."""
    sizes: Sizes = {}
    for each, value in zip(arguments, values, strict=False):
        if value is not None or not each.optional:
            each.hold(value, sizes)
    for each, value in zip(arguments, values, strict=False):
        if isinstance(each, Array) and each.end:
            check_range(each.name, value, each.lowest, sizes[each.end][0])


def hold_gradient(operation: str, name: str, gradient: Any, saved: Any) -> None:
    """Raises unless `saved` is of this operation, and the gradient is like the output."""
    wanted = f"saved must be what {operation}.forward returned, not"
    if not isinstance(saved, SavedValues):
        raise TypeError(f"{wanted} {type(saved).__name__}")
    if saved.operation != operation:
        raise ValueError(f"{wanted} what {saved.operation}.forward returned")
    if saved.shape == () and isinstance(gradient, float):
        return
    check_kind(name, gradient, FLOATS if saved.shape else REAL_NUMBER)
    if gradient.shape != saved.shape:
        raise ValueError(f"{name} must be {saved.shape} like {name[1:]}, not {gradient.shape}")


def check_kind(name: str, value: Any, kind: tuple[str, str]) -> None:
    """Raises TypeError unless it is an array of one of these dtypes."""
    codes, wanted = kind
    if not isinstance(value, ARRAYS) or value.dtype.char not in codes:
        given = value.dtype if isinstance(value, ARRAYS) else type(value).__name__
        raise TypeError(f"{name} must be {wanted}, not {given}")


def check_range(name: str, ids: np.ndarray, lowest: int, end: int) -> None:
    """Raises ValueError with the place of the first integer that is not in [lowest, end)."""
    wrong = (ids < lowest) | (ids >= end)
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        first = f"{name}[{', '.join(map(str, place))}] is {ids[place]}"
        raise ValueError(f"{name} must be in [{lowest}, {end}), but {first}")
