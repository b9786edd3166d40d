"""Calls of short functions are replaced by what the functions return."""

import ast
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygpt_np.study.proof.expression import parsed
from tinygpt_np.study.proof.inline import inlined

FACTOR = 3


def scaled(t: Any, factor: float = 2.0, *, shift: int = 0) -> Any:
    """Scale."""
    product = factor * t
    return product + shift


def scaled_globally(t: Any) -> Any:
    return FACTOR * t


def looping(t: Any) -> Any:
    for _ in range(2):
        t = t + t
    return t


def growing(t: Any) -> Any:
    t = t * t * t * t
    t = t * t * t * t
    t = t * t * t * t
    return t * t * t * t


def branching(t: Any) -> Any:
    if t is None:
        return 0
    return t


class Layer:
    def __init__(self) -> None:
        self.weight = 2.0

    def method(self, t: Any) -> Any:
        return self.weight * t

    @staticmethod
    def static(t: Any) -> Any:
        return np.tanh(t)


def shown(function: Callable[..., Any], call: str, **names: Any) -> str | None:
    node = parsed(call)
    assert isinstance(node, ast.Call)
    found = inlined(function, node, {"np": np, "FACTOR": FACTOR, **names})
    return ast.unparse(found) if found else None


def test_a_call_is_replaced_by_the_returned_expression() -> None:
    assert shown(scaled, "scaled(x @ w)") == "2.0 * (x @ w) + 0"
    assert shown(scaled, "scaled(x, shift=n, factor=a)") == "a * x + n"
    assert shown(scaled_globally, "scaled_globally(x)") == "FACTOR * x"


def test_methods_are_inlined_with_their_object() -> None:
    assert shown(Layer().method, "layer.method(x)") == "layer.weight * x"
    assert shown(Layer.static, "layer.static(x)") == "np.tanh(x)"


def test_other_functions_are_not_inlined() -> None:
    for function in (looping, branching, growing, np.exp, len, Layer):
        assert shown(function, "f(x)") is None, function
    # A wrong number of arguments, a starred one, or a global name that means something else here.
    assert shown(scaled, "scaled(x, 1, 2)") is None
    assert shown(scaled, "scaled(*x)") is None
    assert shown(scaled_globally, "scaled_globally(x)", FACTOR=4) is None
