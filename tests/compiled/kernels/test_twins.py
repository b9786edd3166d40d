"""All kernels keep the contract and results of ops/, in any layout, and take float32 only."""

import inspect
from typing import Any, cast

import numpy as np
import pytest
from helpers.architecture import OPERATIONS
from helpers.kernel_twins import normals, plain

from tinygpt_np import ops
from tinygpt_np.compiled import kernels

rng, normal = normals(11)
IDS, MASK = rng.integers(0, 7, 24), (normal(3, 5, 7) > 0).astype(np.float32) * np.float32(2)
KEPT = np.float32(1.5) * (normal(2, 3, 19, 19) > -0.4)
# The arguments of the forward, and the gradient.
CASES: dict[str, tuple[tuple[Any, ...], Any]] = {
    "gelu": ((normal(3, 5, 7),), normal(3, 5, 7)),
    "gelu_exact": ((normal(3, 5, 7),), normal(3, 5, 7)),
    "softmax": ((normal(3, 5, 7),), normal(3, 5, 7)),
    "dropout": ((normal(3, 5, 7), MASK), normal(3, 5, 7)),
    "dropout, off": ((normal(3, 5, 7),), normal(3, 5, 7)),
    "layer_norm": ((normal(6, 19), normal(19), normal(19)), normal(6, 19)),
    "layer_norm, no bias": ((normal(6, 19), normal(19)), normal(6, 19)),
    "linear": ((normal(13, 33), normal(33, 19), normal(19)), normal(13, 19)),
    "linear, tied": ((normal(13, 33), normal(19, 33).T), normal(13, 19)),
    "embedding": ((IDS, normal(7, 5)), normal(24, 5)),
    "cross_entropy": ((normal(24, 7), np.where(IDS == 3, -1, IDS)), 0.37),
    "cross_entropy, nothing to count": ((normal(3, 7), np.full(3, -1)), 0.37),
    "attention": ((normal(38, 45), 2, 3, KEPT), normal(38, 15)),
    "attention, no dropout": ((normal(38, 45), 2, 3), normal(38, 15)),
}
every_case = pytest.mark.parametrize("name", CASES)


def twins(name: str) -> tuple[Any, Any]:
    """Return an operation's modules of kernels and of ops."""
    operation = name.partition(",")[0]
    return getattr(kernels, operation), getattr(ops, operation)


def calls(name: str) -> list[tuple[Any, tuple[Any, ...]]]:
    """Return the forward and the backward of a kernel, with arguments."""
    twin, (args, dy) = twins(name)[0], CASES[name]
    return [(twin.forward, args), (twin.backward, (dy, twin.forward(*args)[1]))]


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
        compiled, numpy = getattr(twin, name), plain(getattr(original, name))
        assert inspect.signature(compiled) == inspect.signature(numpy)
        first, expected = ((f.__doc__ or "").partition("\n")[0] for f in (compiled, numpy))
        assert first == expected


@every_case
def test_results_are_those_of_ops_and_may_be_overwritten(name: str) -> None:
    (twin, original), (args, dy) = twins(name), CASES[name]
    y, saved = twin.forward(*args)
    args64 = [x.astype(float) if is_array(x) and x.dtype == np.float32 else x for x in args]
    truth, saved64 = plain(original.forward)(*args64)
    np.testing.assert_allclose(y, truth, rtol=1e-5, atol=1e-5)
    if isinstance(y, np.ndarray) and name != "softmax":  # It is saved for the backward.
        y[...] = np.nan
    truths = flatten(plain(original.backward)(dy if isinstance(dy, float) else dy + 0.0, saved64))
    for _ in range(2):
        found = flatten(twin.backward(dy, saved))
        for one, other in zip(found, truths, strict=True):
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
    for function, args in calls(name):
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


def test_ids_and_targets_may_be_any_integers() -> None:
    ids, weight, logits = IDS.astype(np.uint16), normal(7, 5), normal(24, 7)
    np.testing.assert_array_equal(kernels.embedding.forward(ids, weight)[0], weight[IDS])
    losses = [kernels.cross_entropy.forward(logits, each)[0] for each in (ids, IDS)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("place", [0, 17, 36])
@pytest.mark.parametrize("operation", ["gelu", "gelu_exact", "softmax", "layer_norm", "linear"])
def test_nan_spoils_its_row_and_no_other(operation: str, place: int) -> None:
    twin, x = twins(operation)[0], normal(3, 37)
    x[1, place] = np.nan
    weights = {"layer_norm": (normal(37),), "linear": (normal(37, 19), normal(19))}
    y, saved = twin.forward(x, *weights.get(operation, ()))
    by_element = operation.startswith("gelu")
    spoilt = np.isnan(x) if by_element else np.isnan(x).any(axis=1, keepdims=True)
    np.testing.assert_array_equal(np.isnan(y), np.broadcast_to(spoilt, y.shape))
    if by_element:
        np.testing.assert_array_equal(np.isnan(twin.backward(normal(3, 37), saved)), spoilt)
