"""Numbers of any size, from 1e-30 to 1e38 in float32, in both backends.

The reference is ops/ in float64. An overflow on the way must not become NaN.
"""

import math
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest
from helpers.architecture import OPERATIONS

from tinygpt_np import ops
from tinygpt_np.compiled import kernels
from tinygpt_np.gradcheck.cases import case

MAGNITUDES = [10.0**power for power in (-30, -10, 0, 10, 18, 19, 30, 38)]
# The square of a larger number is infinite in float32.
SQUARES_OVERFLOW = 1e19
# Those whose squares are numbers in float32, for operations that return squares or products.
SQUARES = [magnitude for magnitude in MAGNITUDES if 1e-19 < magnitude < SQUARES_OVERFLOW]
NORMS, SQUARING = ("layer_norm", "rms_norm"), ("relu_squared", "swiglu")

backends = pytest.mark.parametrize("backend", [ops, kernels], ids=["numpy", "numba"])


def results(module: ModuleType, operation: str, args: list[Any], doutput: Any) -> list[np.ndarray]:
    """Return the output of an operation and its gradients."""
    chosen = getattr(module, operation)
    with np.errstate(over="ignore"):
        out, saved = chosen.forward(*args)
        gradients: Any = chosen.backward(doutput, saved)
    parts = cast(tuple[Any, ...], gradients if isinstance(gradients, tuple) else (gradients,))
    return [np.asarray(each) for each in (out, *parts)]


def wide(array: Any) -> Any:
    return array.astype(np.float64) if getattr(array, "dtype", None) == np.float32 else array


def inputs(operation: str, magnitude: float) -> tuple[list[Any], Any]:
    """Return arguments, the first float one of a magnitude, and an upstream gradient.

    All sums stay finite: signs alternate, and the other factors are divided by the number of terms.
    """
    chosen = case(operation)
    args: dict[str, Any] = {
        name: arg / len(arg) if name in chosen.as_dtype(float) and name != "mask" else arg
        for name, arg in chosen.args.items()
    }
    first = chosen.differentiable[0]
    x: np.ndarray = np.abs(args[first])
    x *= np.where(np.arange(int(x.shape[-1])) % 2 == 1, magnitude, -magnitude) / (x.max() * len(x))
    args[first] = x
    dy = np.random.default_rng(7).uniform(-1, 1, chosen.forward().shape)
    narrow = {name: args[name].astype(np.float32) for name in chosen.as_dtype(float)}
    return [*(args | narrow).values()], dy.astype(np.float32)


@backends
@pytest.mark.parametrize(
    ("operation", "magnitude"),
    [
        (name, magnitude)
        for name in OPERATIONS
        for magnitude in (SQUARES if name in SQUARING else MAGNITUDES)
        if name != "attention"
    ],
)
def test_numbers_of_any_size_give_the_right_result(
    operation: str, magnitude: float, backend: ModuleType
) -> None:
    args, dy = inputs(operation, magnitude)
    truths = results(ops, operation, [wide(arg) for arg in args], wide(dy))
    for found, truth in zip(results(backend, operation, args, dy), truths, strict=True):
        assert np.isfinite(found).all()
        if operation in NORMS and backend is ops and magnitude >= SQUARES_OVERFLOW:
            continue  # The mean square is infinite and x̂ is 0, as in PyTorch.
        # Near one-hot, a gradient of softmax is a difference of numbers of order one.
        least = 0.1 if operation in ("softmax", "cross_entropy") else 0
        assert np.abs(found - truth).max() <= 1e-5 * max(np.abs(truth).max(), least)


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
