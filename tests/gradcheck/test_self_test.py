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


def scaled(y: np.ndarray, place: Any) -> np.ndarray:
    y[place] *= np.float32(1.01)
    return y


def changed_softmax(change: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Any]:
    def forward(x: np.ndarray) -> Any:
        output, saved = ops.softmax.forward(x)
        return change(output), saved

    return forward


def changed_linear(factor: float) -> Callable[..., Any]:
    def backward(dy: np.ndarray, saved: Any) -> Any:
        dx, dweight, dbias = ops.linear.backward(dy, saved)
        return dx, dweight * np.float32(factor), dbias

    return backward


@pytest.mark.parametrize(
    ("operation", "name", "function"),
    [
        ("softmax", "forward", changed_softmax(lambda y: y.astype("float64"))),
        # Wrong in a full vector alone, and in short rows alone.
        ("softmax", "forward", changed_softmax(lambda y: scaled(y, np.s_[..., 16:32]))),
        ("softmax", "forward", changed_softmax(lambda y: scaled(y, y.shape[-1] < 16))),
        ("linear", "backward", changed_linear(1 + 1e-4)),
        ("linear", "backward", changed_linear(float("nan"))),
    ],
)  # fmt: skip
def test_an_error_is_found_in_its_operation(
    operation: str, name: str, function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "__all__", [operation, "dropout"])
    found = self_test(monkeypatch, with_changed(operation, **{name: function}))
    assert wrong(found) == [operation]
    if problem := found[operation].problem:
        assert "expected float32 of shape (2, 3, 11), not float64" in problem


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
