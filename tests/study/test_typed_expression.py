"""What the names and calls of a typed line may hold; what it comes to is tried in test_typed.py."""

from typing import Any

import numpy as np
import pytest

from tinygpt_np.study.typed import Refused, evaluate


def test_what_a_call_returns_may_be_too_large() -> None:
    with pytest.raises(Refused, match="more than 200,000 elements"):
        evaluate("make()", {}, {"make": lambda: np.zeros(200_001)})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.ones(3) * 1j, "holds complex128, not real numbers"),
        (np.array([None]), "holds object, not real numbers"),
        (np.array(["text"]), "holds <U4, not real numbers"),
        (np.dtype(float), "not a value here"),
        ("text", "is a str, not a value here"),
        (np, "is a module, not a value here"),
        (np.exp, "is a ufunc, not a value here"),
        ((1, {"x": 1}), "is a dict, not a value here"),
    ],
)
def test_a_name_of_another_kind_of_value_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        evaluate("dx = held", {"held": value}, {})


def test_names_with_a_leading_underscore_are_not_known() -> None:
    with pytest.raises(Refused, match="there is no `_hidden` here; known: x"):
        evaluate("_hidden", {"_hidden": 1.0, "x": 1.0}, {})


def test_a_branch_that_is_not_taken_calls_nothing() -> None:
    called: list[Any] = []
    evaluate("1 if x is None else spy(x)", {"x": None}, {"spy": called.append})
    assert called == []


def test_what_is_refused_at_its_end_has_called_nothing_at_its_beginning() -> None:
    called: list[Any] = []
    with pytest.raises(Refused, match="`not 1`"):
        evaluate("(spy(x), not 1)", {"x": 1.0}, {"spy": called.append})
    assert called == []
