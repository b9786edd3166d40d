"""The self-test of the compiled kernels finds errors."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tinygpt_np import backend, ops
from tinygpt_np.gradcheck import self_test as doctor


def found_wrong(
    monkeypatch: pytest.MonkeyPatch, operation: str, **functions: Callable[..., Any]
) -> dict[str, doctor.Found]:
    """Return what the self-test says of ops/ with some functions of an operation replaced."""
    module = getattr(ops, operation)
    changed = {"forward": module.forward, "backward": module.backward, **functions}
    others = {name: getattr(ops, name) for name in ops.__all__}
    compiled = SimpleNamespace(**others | {operation: SimpleNamespace(**changed)})
    monkeypatch.setattr(backend, "load", {"numba": compiled}.__getitem__)
    found = doctor.self_test(lambda kernel: None)
    assert [each.operation for each in found] == ops.__all__
    assert all(
        (0 if each.operation == "relu" else 1e-9) <= each.error < 1e-6  # ReLU does not round.
        for each in found if each.ok
    )  # fmt: skip
    return {each.operation: each for each in found if not each.ok}


def as_float64(y: np.ndarray) -> np.ndarray:
    return y.astype("float64")


def wrong_in_a_full_vector(y: np.ndarray) -> np.ndarray:
    y[..., 16:32] *= np.float32(1.01)
    return y


def wrong_in_short_rows(y: np.ndarray) -> np.ndarray:
    return y * np.float32(1.01 if y.shape[-1] < 16 else 1)


@pytest.mark.parametrize("change", [as_float64, wrong_in_a_full_vector, wrong_in_short_rows])
def test_an_error_of_an_output_is_found(
    change: Callable[[np.ndarray], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(x: np.ndarray) -> Any:
        output, saved = ops.softmax.forward(x)
        return change(output), saved

    (found,) = found_wrong(monkeypatch, "softmax", forward=forward).values()
    expected = "expected float32 of shape (2, 3, 11), not float64"
    assert (expected in found.problem) == (change is as_float64)
    assert found.operation == "softmax"


@pytest.mark.parametrize("factor", [1 + 1e-4, math.nan])
def test_an_error_of_a_gradient_is_found(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def backward(dy: np.ndarray, saved: Any) -> Any:
        dx, dweight, dbias = ops.linear.backward(dy, saved)
        return dx, dweight * np.float32(factor), dbias

    assert [*found_wrong(monkeypatch, "linear", backward=backward)] == ["linear"]


def test_an_operation_that_raises_does_not_stop_the_self_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forward(**args: Any) -> Any:
        raise RuntimeError("no such instruction")

    found = found_wrong(monkeypatch, "attention", forward=forward)
    assert [each.problem for each in found.values()] == ["RuntimeError: no such instruction"]
