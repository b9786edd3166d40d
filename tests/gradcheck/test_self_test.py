"""The self-test of the compiled kernels finds errors, and the facts describe the machine."""

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from tinygpt_np import backend, ops
from tinygpt_np.gradcheck import self_test as doctor


def with_changed(operation: str, **functions: Callable[..., Any]) -> ModuleType:
    """Return ops/ with some functions of an operation replaced."""
    names = ("forward", "backward")
    modules = {
        name: SimpleNamespace(**{each: getattr(getattr(ops, name), each) for each in names})
        for name in ops.__all__
    }
    for name, function in functions.items():
        setattr(modules[operation], name, function)
    return cast(ModuleType, SimpleNamespace(**modules))


def self_test(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> dict[str, doctor.Found]:
    monkeypatch.setattr(backend, "load", {"compiled": module}.__getitem__)
    found = doctor.self_test("compiled", lambda kernel: None)
    return {each.operation: each for each in found}


def wrong(found: dict[str, doctor.Found]) -> list[str]:
    return [name for name, each in found.items() if not each.ok]


def test_every_operation_passes_with_the_error_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    found = self_test(monkeypatch, ops)
    assert list(found) == ops.__all__
    assert wrong(found) == []
    assert all(1e-9 < each.error < 1e-6 for each in found.values())


def scaled_gelu(x: np.ndarray) -> Any:
    output, saved = ops.gelu.forward(x)
    return output * np.float32(1 + 1e-4), saved


def float64_gelu(x: np.ndarray) -> Any:
    output, saved = ops.gelu.forward(x)
    return output.astype("float64"), saved


def full_vector_of_softmax(x: np.ndarray) -> Any:
    output, saved = ops.softmax.forward(x)
    output[..., 16:32] *= np.float32(1.01)
    return output, saved


def short_softmax(x: np.ndarray) -> Any:
    output, saved = ops.softmax.forward(x)
    return output * np.float32(1.01 if x.shape[-1] < 16 else 1), saved


def scaled_weight_gradient(dy: np.ndarray, saved: Any) -> Any:
    dx, dweight, dbias = ops.linear.backward(dy, saved)
    return dx, dweight * np.float32(1 + 1e-4), dbias


def nan_in_a_gradient(dy: np.ndarray, saved: Any) -> Any:
    dx, dweight, dbias = ops.linear.backward(dy, saved)
    return dx, dweight * np.float32("nan"), dbias


@pytest.mark.parametrize(
    ("operation", "changed"),
    [
        ("gelu", {"forward": scaled_gelu}),
        ("gelu", {"forward": float64_gelu}),
        ("softmax", {"forward": full_vector_of_softmax}),
        ("softmax", {"forward": short_softmax}),
        ("linear", {"backward": scaled_weight_gradient}),
        ("linear", {"backward": nan_in_a_gradient}),
    ],
)
def test_an_error_is_found_in_its_operation(
    operation: str, changed: dict[str, Callable[..., Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "__all__", [operation, "dropout"])
    found = self_test(monkeypatch, with_changed(operation, **changed))
    assert wrong(found) == [operation]
    if changed == {"forward": float64_gelu}:
        assert "expected float32 of shape (6, 8), not float64" in found["gelu"].problem


def test_an_operation_that_raises_does_not_stop_the_self_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forward(**args: Any) -> Any:
        raise RuntimeError("no such instruction")

    found = self_test(monkeypatch, with_changed("attention", forward=forward))
    assert wrong(found) == ["attention"]
    assert found["attention"].problem == "RuntimeError: no such instruction"


def test_an_operation_that_is_missing_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    module = with_changed("gelu")
    delattr(module, "gelu")
    found = self_test(monkeypatch, module)
    assert wrong(found) == ["gelu"]
    assert "AttributeError" in found["gelu"].problem
