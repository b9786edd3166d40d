"""What holds for each kernel beside its twin in ops/."""

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest


def poisoned(*shape: int) -> np.ndarray:
    """An output before a kernel writes it: whatever stays unwritten shows."""
    return np.full(shape, np.nan, np.float32)


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """An operation of ops/ without the check of what it is given."""
    return inspect.unwrap(function)


def assert_same_contract(twin: ModuleType, original: ModuleType, *names: str) -> None:
    """Fails unless these functions have the signature and first docstring line of ops/."""
    for name in names:
        ours, theirs = getattr(twin, name), plain(getattr(original, name))
        assert inspect.signature(ours) == inspect.signature(theirs)
        first, expected = ((f.__doc__ or "").partition("\n")[0] for f in (ours, theirs))
        assert first == expected


def is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic)


def flatten(result: Any) -> list[np.ndarray]:
    """The arrays a function returned, without what it saved."""
    parts = cast("tuple[Any, ...]", result if isinstance(result, tuple) else (result,))
    return [np.asarray(part) for part in parts if is_array(part)]


def assert_takes_any_layout(function: Callable[..., Any], *args: Any) -> None:
    """Fails unless each array may be strided or read-only, and none is changed or handed back."""
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
    """Fails unless a first argument in float64 is a TypeError with this message."""
    with pytest.raises(TypeError, match=rf"^{message} must be an array of float32, not float64$"):
        function(args[0].astype(np.float64), *args[1:])
