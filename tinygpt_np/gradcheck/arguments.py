"""What a check is given: the arguments by name, and which of them have a gradient."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from tinygpt_np.gradcheck.measure import METHODS, CheckError, Method

Arguments = Sequence[Any] | Mapping[str, Any]


def check_options(method: Method, directions: int | None, seed: int) -> None:
    if method not in METHODS:
        raise CheckError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if directions is not None and (type(directions) is not int or directions < 1):
        raise CheckError(f"directions must be a positive integer or None, not {directions!r}")
    if type(seed) is not int or seed < 0:
        raise CheckError(f"seed must be an integer from 0 on, not {seed!r}")


def check_callable(name: str, function: Any) -> None:
    if not callable(function):
        raise CheckError(f"{name} must be a function, not {type(function).__name__}")


def named(forward: Callable[..., Any], args: Arguments) -> dict[str, Any]:
    """The arguments by name; a function without a signature gets arg0, arg1, …"""
    if isinstance(args, Mapping):
        return dict(args)
    if not isinstance(args, tuple | list):
        kind = type(args).__name__
        raise CheckError(f"args must be a tuple or a dict of arguments, not {kind}: write (x,)")
    try:
        parameters = list(inspect.signature(forward).parameters)
    except ValueError:
        parameters = []
    names = parameters[: len(args)]
    names += [f"arg{i}" for i in range(len(names), len(args))]
    return dict(zip(names, args, strict=True))


def differentiable(args: Mapping[str, Any], wrt: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the arguments to be checked: those asked for, or all arrays of floats."""
    floats = [name for name, arg in args.items() if is_floating(arg)]
    names = tuple(floats) if wrt is None else (wrt,) if isinstance(wrt, str) else tuple(wrt)
    if not names:
        if wrt is not None:
            raise CheckError(f"wrt must name some of the arguments ({', '.join(args)}), not none")
        kinds = ", ".join(f"{name}: {kind_of(arg)}" for name, arg in args.items())
        raise CheckError(f"one of the arguments must be an array of floats, not only {kinds}")
    if len(set(names)) < len(names):
        raise CheckError(f"wrt must name each argument once, not {', '.join(names)}")
    for name in names:
        if name not in args:
            raise CheckError(f"wrt must name arguments ({', '.join(args)}), not {name!r}")
        arg = args[name]
        if name not in floats or arg.dtype not in (np.float32, np.float64):
            raise CheckError(f"{name} must be an array of float32 or float64, not {kind_of(arg)}")
        if not arg.size:
            raise CheckError(f"{name} must not be empty, but its shape is {arg.shape}")
        if not np.isfinite(arg).all():
            raise CheckError(f"{name} must be finite, but {first_not_finite(arg)}")
    return names


def unchecked(args: Mapping[str, Any], wrt: Sequence[str]) -> list[str]:
    """The arguments that may hold floats, but not as arrays, each with what it is."""
    holders = (float, complex, dict, list, tuple)
    return [
        f"{n} ({kind_of(a)})" for n, a in args.items() if n not in wrt and isinstance(a, holders)
    ]


def output_of(returned: Any) -> np.ndarray:
    """The output among what a forward returned: of (out, saved), or alone."""
    if isinstance(returned, tuple):
        parts = cast(tuple[Any, ...], returned)
        if len(parts) != 2:
            raise CheckError(f"forward must return (out, saved), not {len(parts)} values")
        returned = parts[0]
    if not isinstance(returned, float) and not is_floating(returned):
        raise CheckError(
            f"the output of forward must be an array of floats, not {kind_of(returned)}"
        )
    out: np.ndarray = np.asarray(returned)
    if not out.size:
        raise CheckError(f"the output of forward must not be empty, but its shape is {out.shape}")
    if not np.isfinite(out).all():
        raise CheckError(f"the output of forward must be finite, but {first_not_finite(out)}")
    return out


def first_not_finite(array: np.ndarray) -> str:
    place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
    return f"at {place} it is {array[place]}"


def is_floating(arg: Any) -> bool:
    return isinstance(arg, np.ndarray | np.generic) and np.issubdtype(
        cast(Any, arg).dtype, np.floating
    )


def kind_of(arg: Any) -> str:
    return str(getattr(arg, "dtype", type(arg).__name__))


def promoted(arg: Any) -> Any:
    """Arrays of floats as float64, everything else as it is."""
    return np.asarray(arg, dtype=np.float64) if is_floating(arg) else arg
