"""Numbers of any size, from 1e-30 to 1e38 in float32, in both backends.

The reference is ops/ in float64. An overflow on the way must not become NaN.
"""

import inspect
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest

from tinygpt_np import ops
from tinygpt_np.compiled import kernels

MAGNITUDES = [10.0**power for power in (-30, -10, 0, 10, 18, 19, 30, 38)]
# The square of a larger number is infinite in float32.
SQUARES_OVERFLOW = 1e19
N, C = 5, 37
OPERATIONS = ["gelu", "gelu_exact", "softmax", "layer_norm", "dropout", "embedding", "linear"]

magnitudes = pytest.mark.parametrize("magnitude", MAGNITUDES)
backends = pytest.mark.parametrize("backend", [ops, kernels], ids=["numpy", "numba"])


def inputs(operation: str, magnitude: float) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the arguments of an operation, the first of a magnitude, and an upstream gradient."""
    rng = np.random.default_rng(7)
    x = (rng.uniform(-1, 1, (N, C)) * magnitude).astype(np.float32)
    # Alternating signs, so that the sum of a row does not overflow.
    x = np.abs(x) * np.where(np.arange(C) % 2, 1, -1).astype(np.float32)
    weight, bias = rng.uniform(-1, 1, (2, C)).astype(np.float32)
    dy = rng.uniform(-1, 1, (N, C)).astype(np.float32)
    mask = np.array(rng.random((N, C)) < 0.8, np.float32)
    matrix = rng.uniform(-1, 1, (C, C)).astype(np.float32) / C
    more: dict[str, list[np.ndarray]] = {
        "layer_norm": [weight, bias], "dropout": [mask], "linear": [matrix, bias],
    }  # fmt: skip
    if operation == "embedding":
        return [np.array([4, 0, 3, 0, 1]), x], dy
    return [x, *more.get(operation, [])], dy


def results(module: ModuleType, operation: str, args: list[Any], doutput: Any) -> list[np.ndarray]:
    """Return the output of an operation and its gradients."""
    functions: list[Callable[..., Any]] = [
        inspect.unwrap(getattr(getattr(module, operation), name))
        for name in ("forward", "backward")
    ]
    forward, backward = functions
    with np.errstate(over="ignore"):
        out, saved = forward(*args)
        gradients = backward(doutput, saved)
    parts = cast(tuple[Any, ...], gradients if isinstance(gradients, tuple) else (gradients,))
    return [np.asarray(each) for each in (out, *parts)]


def wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype == np.float32 else array


@backends
@magnitudes
@pytest.mark.parametrize("operation", OPERATIONS)
def test_numbers_of_any_size_give_the_right_result(
    operation: str, magnitude: float, backend: ModuleType
) -> None:
    args, dy = inputs(operation, magnitude)
    truths = results(ops, operation, [wide(arg) for arg in args], wide(dy))
    for found, truth in zip(results(backend, operation, args, dy), truths, strict=True):
        assert np.isfinite(found).all()
        if operation == "layer_norm" and backend is ops and magnitude >= SQUARES_OVERFLOW:
            continue  # The variance is infinite and y is the bias, as in PyTorch.
        allowed = 1e-5 * np.abs(truth).max()
        if operation == "softmax":
            allowed += 1e-6  # Near one-hot, dx is a difference of numbers of order one.
        assert np.abs(found - truth).max() <= allowed


@backends
@magnitudes
def test_logits_of_any_size_give_the_right_loss_and_gradients(
    magnitude: float, backend: ModuleType
) -> None:
    (logits,), targets = inputs("softmax", magnitude)[0], np.array([3, 0, -1, 36, 9])
    # The loss is a sum over the rows, which must stay finite.
    logits /= np.float32(N)
    truths = results(ops, "cross_entropy", [wide(logits), targets], 0.3)
    for found, truth in zip(
        results(backend, "cross_entropy", [logits, targets], 0.3), truths, strict=True
    ):
        assert np.abs(found - truth).max() <= 1e-5 * max(np.abs(truth).max(), 0.1)


@backends
@pytest.mark.parametrize("magnitude", [m for m in MAGNITUDES if m < SQUARES_OVERFLOW])
def test_keys_of_any_size_give_the_right_attention(magnitude: float, backend: ModuleType) -> None:
    rng = np.random.default_rng(7)
    # Powers of two, for exact products in float32, and integers, so that no two scores are nearly
    # equal.
    factor = 2.0 ** round(math.log2(magnitude))
    qkv = (rng.integers(-9, 10, (6, 24)) * factor).astype(np.float32)
    dy = rng.uniform(-1, 1, (6, 8)).astype(np.float32)
    truths = results(ops, "attention", [wide(qkv), 2, 2], wide(dy))
    for found, truth in zip(results(backend, "attention", [qkv, 2, 2], dy), truths, strict=True):
        assert np.abs(found - truth).max() <= 1e-5 * np.abs(truth).max()
