"""Checks of each kernel against its twin in ops/."""

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest


def poisoned(*shape: int) -> np.ndarray:
    """Return an output of NaN, so that numbers that a kernel does not write show."""
    return np.full(shape, np.nan, np.float32)


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return an operation of ops/ without the check of its arguments."""
    return inspect.unwrap(function)


def assert_same_contract(twin: ModuleType, original: ModuleType, *names: str) -> None:
    """Check that these functions have the signature and first docstring line of ops/."""
    for name in names:
        kernel, operation = getattr(twin, name), plain(getattr(original, name))
        assert inspect.signature(kernel) == inspect.signature(operation)
        first, expected = ((f.__doc__ or "").partition("\n")[0] for f in (kernel, operation))
        assert first == expected


def is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic)


def flatten(result: Any) -> list[np.ndarray]:
    """Return the arrays a function returned, without what it saved."""
    parts = cast("tuple[Any, ...]", result if isinstance(result, tuple) else (result,))
    return [np.asarray(part) for part in parts if is_array(part)]


def assert_takes_any_layout(function: Callable[..., Any], *args: Any) -> None:
    """Check that arrays may be strided or read-only, and are neither changed nor returned."""
    expected = flatten(function(*args))
    for place, array in enumerate(args):
        if not is_array(array):
            continue
        wide: np.ndarray = np.zeros(tuple(2 * size for size in array.shape), array.dtype)
        strided = wide[tuple(slice(None, None, 2) for _ in array.shape)]
        strided[...] = array
        frozen = array.copy()
        frozen.flags.writeable = False
        for variant in (strided, frozen, np.asfortranarray(array)):
            given: list[Any] = [*args[:place], variant, *args[place + 1 :]]
            before: list[Any] = [each.copy() if is_array(each) else each for each in given]
            found = flatten(function(*given))
            for one, other in zip(found, expected, strict=True):
                assert one.dtype == np.float32
                np.testing.assert_array_equal(one, other)
                assert not any(np.shares_memory(one, x) for x in given if is_array(x))
            for one, other in zip(given, before, strict=True):
                if is_array(one):
                    np.testing.assert_array_equal(one, other)


def assert_refuses_float64(function: Callable[..., Any], message: str, *args: Any) -> None:
    """Check that a first argument in float64 is a TypeError with this message."""
    with pytest.raises(TypeError, match=rf"^{message} must be an array of float32, not float64$"):
        function(args[0].astype(np.float64), *args[1:])
