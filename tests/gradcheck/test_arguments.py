"""What a check is given: taken apart by name, or refused with what was expected and what came."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tinygpt_np import Bigram
from tinygpt_np.gradcheck import CheckError, check, check_model

X, IDS = np.array([[0.5, -1.5, 2.5]]), np.array([1, 0])


def square(x: np.ndarray) -> tuple[np.ndarray, Any]:
    return x * x, x


def dsquare(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    return 2 * dy * x


def scaled(dy: np.ndarray, scale: float) -> np.ndarray:
    return dy * scale


def first_of(dy: np.ndarray, n: np.ndarray) -> np.ndarray:
    return dy * n[0]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (X, r"args must be a tuple or a dict of arguments, not ndarray: write \(x,\)"),
        ("abc", "args must be a tuple or a dict of arguments, not str"),
        (None, "args must be a tuple or a dict of arguments, not NoneType"),
        ((), "one of the arguments must be an array of floats"),
        ((IDS,), "one of the arguments must be an array of floats, not only x: int64"),
        (([0.5],), "one of the arguments must be an array of floats, not only x: list"),
        ((X.astype(complex),), "must be an array of floats, not only x: complex128"),
        ((X.astype(np.float16),), "x must be an array of float32 or float64, not float16"),
        ((np.zeros((0, 3)),), r"x must not be empty, but its shape is \(0, 3\)"),
        ((np.array([1.0, np.nan]),), r"x must be finite, but at \(1,\) it is nan"),
    ],
)
def test_bad_arguments_are_named(args: Any, message: str) -> None:
    with pytest.raises(CheckError, match=message):
        check(square, dsquare, args)


@pytest.mark.parametrize(
    ("wrt", "message"),
    [
        (["z"], r"wrt must name arguments \(x, n\), not 'z'"),
        (["n"], "n must be an array of float32 or float64, not int64"),
        ([], r"wrt must name some of the arguments \(x, n\), not none"),
        (["x", "x"], "wrt must name each argument once, not x, x"),
    ],
)
def test_a_bad_choice_of_arguments_is_named(wrt: Sequence[str], message: str) -> None:
    def forward(x: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, Any]:
        return x * n[0], n

    with pytest.raises(CheckError, match=message):
        check(forward, first_of, (X, IDS), wrt)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "autograd"}, "method must be one of complex, central, richardson, taylor, not"),
        ({"directions": 0}, "directions must be a positive integer or None, not 0"),
        ({"directions": "3"}, "directions must be a positive integer or None, not '3'"),
        ({"seed": -1}, "seed must be a non-negative integer, not -1"),
        ({"seed": "a"}, "seed must be a non-negative integer, not 'a'"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckError, match=message):
        check(square, dsquare, (X,), **options)


@pytest.mark.parametrize(
    ("forward", "backward", "message"),
    [
        (None, dsquare, "forward must be a function, not NoneType"),
        (square, 3, "backward must be a function, not int"),
    ],
)
def test_what_is_no_function_is_named(forward: Any, backward: Any, message: str) -> None:
    with pytest.raises(CheckError, match=message):
        check(forward, backward, (X,))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ((X, X, X), r"forward must return \(out, saved\), not 3 values"),
        ((IDS, None), "the output of forward must be an array of floats, not int64"),
        (([1.0, 2.0], None), "the output of forward must be an array of floats, not list"),
        (None, "the output of forward must be an array of floats, not NoneType"),
        ((X[:0], None), r"the output of forward must not be empty, but its shape is \(0, 3\)"),
        ((X / np.inf - np.inf, None), r"must be finite, but at \(0, 0\) it is -inf"),
        (X, r"returns no \(out, saved\) must return a scalar, not \(1, 3\)"),
    ],
)
def test_what_forward_must_not_return_is_named(returned: Any, message: str) -> None:
    with pytest.raises(CheckError, match=message):
        check(lambda x: returned, dsquare, (X,))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]


def test_what_is_no_model_is_named() -> None:
    with pytest.raises(CheckError, match="model must be a LanguageModel, not NoneType"):
        check_model(None, IDS[None], IDS[None])  # pyright: ignore[reportArgumentType]


def test_a_token_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match=r"tokens must be in \[0, 3\), but tokens\[0, 1\] is 3"):
        check_model(Bigram(3), np.array([[0, 3]]), np.array([[0, 1]]))


def test_arguments_that_cannot_be_checked_are_noted() -> None:
    def forward(x: np.ndarray, p: dict[str, float], gain: float) -> tuple[np.ndarray, Any]:
        return x * gain * p["w"], gain * p["w"]

    report = check(forward, scaled, (X, {"w": 2.0}, 3.0))
    assert report.ok
    assert report.notes == ("not checked, because not an array of floats: p (dict), gain (float)",)


def test_ids_none_and_numbers_of_heads_are_not_noted() -> None:
    def forward(x: np.ndarray, ids: np.ndarray, n: int, mask: None) -> tuple[np.ndarray, Any]:
        return x * n, n

    assert check(forward, scaled, (X, IDS, 2, None)).notes == ()


def test_arguments_have_the_names_of_the_signature() -> None:
    assert [row.name for row in check(square, dsquare, (X,)).rows] == ["x"]
