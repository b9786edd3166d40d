"""All kernels keep the contract and results of ops/, in any layout, and take float32 only."""

import inspect
from typing import Any, cast

import numpy as np
import pytest
from helpers.architecture import OPERATIONS
from helpers.kernel_twins import normals

from benchmarks.cases import unchecked
from tinygpt_np import ops
from tinygpt_np.compiled import kernels
from tinygpt_np.gradcheck.cases import CASES

rng, normal = normals(11)


def cases() -> dict[str, tuple[str, tuple[Any, ...], Any]]:
    """Return the operation, the arguments of its forward and a gradient of each case."""
    found: dict[str, tuple[str, tuple[Any, ...], Any]] = {}
    for case in CASES:
        args = tuple((case.args | case.as_dtype(np.float32)).values())
        shape = case.forward().shape
        found[case.name] = case.operation, args, normal(*shape) if shape else 0.37
    x, weight, bias = found["linear"][1]
    tied = np.ascontiguousarray(weight.T).T
    found["linear, tied"] = "linear", (x, tied, bias), found["linear"][2]
    found["nothing to count"] = "cross_entropy", (normal(3, 7), np.full(3, -1)), 0.37
    return found


ARGUMENTS = cases()
every_case = pytest.mark.parametrize("name", ARGUMENTS)


def twins(operation: str) -> tuple[Any, Any]:
    """Return an operation's modules of kernels and of ops."""
    return getattr(kernels, operation), getattr(ops, operation)


def is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic)


def flatten(result: Any) -> list[np.ndarray]:
    """Return the arrays a function returned, without what it saved."""
    parts = cast("tuple[Any, ...]", result if isinstance(result, tuple) else (result,))
    return [np.asarray(part) for part in parts if is_array(part)]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_contract_is_that_of_ops(operation: str) -> None:
    twin, original = twins(operation)
    for name in ("forward", "backward", *(["draw_mask"] if operation == "dropout" else [])):
        compiled, numpy = getattr(twin, name), unchecked(getattr(original, name))
        assert inspect.signature(compiled) == inspect.signature(numpy)
        assert compiled.__doc__.splitlines()[0] == (numpy.__doc__ or "").splitlines()[0]


@every_case
def test_results_are_those_of_ops_and_may_be_overwritten(name: str) -> None:
    operation, args, dy = ARGUMENTS[name]
    twin, original = twins(operation)
    y, saved = twin.forward(*args)
    args64 = [x.astype(float) if is_array(x) and x.dtype == np.float32 else x for x in args]
    truth, saved64 = unchecked(original.forward)(*args64)
    np.testing.assert_allclose(y, truth, rtol=1e-5, atol=1e-5)
    if isinstance(y, np.ndarray) and operation != "softmax":  # It is saved for the backward.
        y[...] = np.nan
    truths = flatten(
        unchecked(original.backward)(dy if isinstance(dy, float) else dy + 0.0, saved64)
    )
    for _ in range(2):
        for one, other in zip(flatten(twin.backward(dy, saved)), truths, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
            one[...] = np.nan


def in_other_layouts(array: np.ndarray) -> list[np.ndarray]:
    strided = np.zeros([2 * size for size in array.shape], array.dtype)
    strided = strided[tuple(slice(None, None, 2) for _ in array.shape)]
    strided[...] = array
    frozen = array.copy()
    frozen.flags.writeable = False
    return [strided, frozen, np.asfortranarray(array)]


@every_case
def test_arguments_may_have_any_layout_and_stay_as_they_were_but_no_other_dtype(name: str) -> None:
    operation, forward_args, dy = ARGUMENTS[name]
    twin, _ = twins(operation)
    backward_args = dy, twin.forward(*forward_args)[1]
    for function, args in ((twin.forward, forward_args), (twin.backward, backward_args)):
        expected = flatten(function(*args))
        parameters = inspect.signature(function).parameters
        for place, (parameter, array) in enumerate(zip(parameters, args, strict=False)):
            if not is_array(array):
                continue
            for variant in in_other_layouts(array):
                given, before = [*args[:place], variant, *args[place + 1 :]], variant.copy()
                for one, other in zip(flatten(function(*given)), expected, strict=True):
                    assert one.dtype == np.float32
                    np.testing.assert_array_equal(one, other)
                    assert not any(np.shares_memory(one, x) for x in given if is_array(x))
                np.testing.assert_array_equal(variant, before)
            kind = "float32" if array.dtype == np.float32 else "integers"
            message = rf"\.{function.__name__}: {parameter} must be an array of {kind}, not float64"
            with pytest.raises(TypeError, match=message):
                function(*args[:place], array.astype(np.float64), *args[place + 1 :])
