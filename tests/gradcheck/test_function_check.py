"""Calling conventions, refused arguments, and the rules that a backward can break."""

import operator
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gradcheck.functions import SCALE, W, X, cube, dcube, dlinear, linear

from tinygpt_np.gradcheck import CheckError, Report, check
from tinygpt_np.gradcheck.function_check import FunctionCheck, max_elements
from tinygpt_np.gradcheck.measure import METHODS, Method

Forward = Callable[[np.ndarray], tuple[np.ndarray, Any]]
Backward = Callable[[np.ndarray, Any], Any]


def problems(report: Report) -> dict[str, str]:
    return {row.name: "; ".join(row.problems) for row in report.rows if not row.ok}


def of_linear(backward: Backward) -> dict[str, str]:
    return problems(FunctionCheck(linear, (X, W)).report(backward))


def test_the_upstream_gradient_is_random_or_given() -> None:
    for_ones: Backward = lambda dy, x: 3 * x * x  # noqa: E731
    check = FunctionCheck(linear, (X, W))
    assert check.upstream["out"].shape == (4, 5)
    assert len(set(check.upstream["out"].flat)) == 20
    assert FunctionCheck(cube, (X,), doutput=np.ones(X.shape)).report(for_ones).ok
    assert not FunctionCheck(cube, (X,)).report(for_ones).ok


def test_arguments_are_given_by_position_and_numbered_or_by_name() -> None:
    forward: Callable[..., Any] = lambda *both: linear(*both)  # noqa: E731
    assert FunctionCheck(forward, (X, W)).report(dlinear).rows[1].name == "arg1"
    forward = lambda *, w, x: linear(x, w)  # pyright: ignore # noqa: E731
    assert FunctionCheck(forward, {"x": X, "w": W}).report(dlinear).ok


def test_gradients_may_come_by_name_and_only_for_what_was_asked_for() -> None:
    assert of_linear(lambda dy, saved: {"w": saved[0].T @ dy, "x": dy @ saved[1].T}) == {}
    report = FunctionCheck(linear, (X, W), "w").report(lambda dy, saved: saved[0].T @ dy)  # pyright: ignore
    assert [(row.name, row.ok) for row in report.rows] == [("w", True)]


def test_a_missing_gradient_is_wrong_unless_its_argument_was_none() -> None:
    backwards: list[Backward] = [
        lambda dy, saved: {"x": dlinear(dy, saved)[0]},
        lambda dy, saved: (dlinear(dy, saved)[0], None),
        lambda dy, saved: dlinear(dy, saved)[0],
    ]
    for each in backwards:
        report = FunctionCheck(linear, (X, W)).report(each)
        assert [row.name for row in report.rows] == ["x"]
        note = "backward returns no gradient of w: taken as constant; name it in wrt to demand one"
        assert report.notes == (note,)
        demanding = FunctionCheck(linear, (X, W), ("x", "w"))
        assert problems(demanding.report(each)) == {"w": "there is no gradient"}
    forward: Callable[..., Any] = lambda x, w, bias: linear(x, w)  # pyright: ignore # noqa: E731
    backward: Backward = lambda dy, saved: (*dlinear(dy, saved), None)  # noqa: E731
    assert FunctionCheck(forward, (X, W, None)).report(backward).ok


def test_a_list_of_numbers_is_no_gradient() -> None:
    found = of_linear(lambda dy, saved: (dlinear(dy, saved)[0].tolist(), dlinear(dy, saved)[1]))
    assert found == {"x": "the gradient must be an array, not list"}


def test_other_gradients_are_refused() -> None:
    with pytest.raises(CheckError, match="a gradient of weigth, which is none of x, w"):
        of_linear(lambda dy, saved: {"weigth": dy})
    for number in (3, 4):
        message = rf"a gradient for each of x, w \(2 in all\), not {number}; wrt says"
        with pytest.raises(CheckError, match=message):
            of_linear(lambda dy, saved, n=number: (dy,) * n)


def test_a_generator_among_the_arguments_is_replayed() -> None:
    def dropout(x: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Any]:
        mask = rng.random(x.shape) < 0.7
        return x * mask, mask

    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    assert FunctionCheck(dropout, (X, rng)).report(operator.mul).ok
    assert rng.bit_generator.state == before


def test_outputs_that_differ_in_the_last_bits_are_refused() -> None:
    calls: list[int] = []

    def forward(x: np.ndarray) -> tuple[np.ndarray, Any]:
        calls.append(1)
        return x * (1 + 1e-15 * len(calls)), x

    with pytest.raises(CheckError, match="the same output each time; if it draws random numbers"):
        FunctionCheck(forward, (X,))


@pytest.mark.parametrize("method", METHODS)
def test_large_terms_that_cancel_in_the_loss_are_no_false_alarm(method: Method) -> None:
    def forward(x: np.ndarray) -> tuple[np.ndarray, Any]:
        return np.concatenate([1e6 + np.sin(x), 1e6 + 0 * x]), x

    # The loss is of order one, but rounds like its terms of order 1e6.
    weights = np.array([1.0, 2.0, 3.0, -1.0, -2.0, -3.0])
    check = FunctionCheck(forward, (SCALE[:3],), method=method, doutput=weights)
    assert check.report(lambda dy, x: dy[:3] * np.cos(x)).ok  # pyright: ignore


# Arguments and outputs that are refused

ROW, IDS = np.array([[0.5, -1.5, 2.5]]), np.array([1, 0])


def takes_two(x: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, Any]:
    return x * n[0], x


def returns(output: Any) -> tuple[Any, ...]:
    return lambda x: output, dcube, (ROW,)  # pyright: ignore


def takes_three(dy: np.ndarray, x: np.ndarray, saved: Any) -> np.ndarray:
    return dy


REFUSED: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    ((3, dcube, (ROW,)), {}, "forward must be a function, not int"),
    ((cube, None, (ROW,)), {}, "backward must be a function, not NoneType"),
    # Arguments
    ((cube, dcube, ROW), {}, r"a tuple or a dict of arguments, not ndarray: write \(x,\)"),
    ((cube, dcube, (IDS,)), {}, "must be an array of floats, not only x: int64"),
    ((cube, dcube, (ROW.astype(np.float16),)), {}, "float32 or float64, not float16"),
    ((cube, dcube, (np.zeros((0, 3)),)), {}, r"x must not be empty, .* shape is \(0, 3\)"),
    ((cube, dcube, (ROW * [1, np.nan, 1],)), {}, r"x must be finite, but at \(0, 1\) it is nan"),
    ((takes_two, dcube, (ROW, IDS), ["z"]), {}, r"wrt must name arguments \(x, n\), not 'z'"),
    ((takes_two, dcube, (ROW, IDS), ["n"]), {}, "n must be .* float32 or float64, not int64"),
    ((takes_two, dcube, (ROW, IDS), []), {}, r"wrt must name some .*\(x, n\), not none"),
    ((takes_two, dcube, (ROW, IDS), ["x", "x"]), {}, "each argument once, not x, x"),
    # Options
    ((cube, dcube, (ROW,)), {"method": "grad"}, "one of complex, .*, taylor, not 'grad'"),
    ((cube, dcube, (ROW,)), {"directions": "3"}, "a positive integer or None, not '3'"),
    ((cube, dcube, (ROW,)), {"seed": -1}, "seed must be a non-negative integer, not -1"),
    ((cube, dcube, (ROW,)), {"seed": "a"}, "seed must be a non-negative integer, not 'a'"),
    # Outputs
    ((np.positive, takes_three, (ROW,)), {}, r"a scalar, not \(1, 3\), or .* \(dy, x, saved\)"),
    (returns((IDS, None)), {}, "output .* an array of floats, not int64"),
    (returns((ROW - np.inf, 0)), {}, r"be finite, but at \(0, 0\) it is -inf"),
]


@pytest.mark.parametrize(("arguments", "options", "message"), REFUSED)
def test_what_cannot_be_checked_is_refused(
    arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckError, match=message):
        check(*arguments, **options)


def test_floats_outside_arrays_are_noted() -> None:
    def forward(x: np.ndarray, p: dict[str, float], gain: float) -> tuple[np.ndarray, Any]:
        return x * gain * p["w"], gain * p["w"]

    report = check(forward, operator.mul, (ROW, {"w": 2.0}, 3.0))
    assert report.ok
    assert report.notes == (
        "not checked, because not an array of floats: p['w'] (float), gain (float)",
    )


def test_large_or_slow_arguments_are_checked_along_directions_and_a_note_says_so() -> None:
    def forward(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, Any]:
        return np.tanh(x @ w), (x, w)

    def backward(dy: np.ndarray, saved: Any, factor: float = 1) -> Any:
        x, w = saved
        dz = dy * (1 - np.tanh(x @ w) ** 2)
        return dz @ w.T, factor * x.T @ dz

    rng = np.random.default_rng(0)
    args = rng.standard_normal((2, 90)), rng.standard_normal((90, 40))
    report = check(forward, backward, args)
    assert report.ok
    assert [(row.checked, row.by_element) for row in report.rows] == [(180, True), (4, False)]
    (note,) = report.notes
    assert note == "too large or too slow to check every element: w; checked along 4 directions"
    wrong = check(forward, lambda dy, saved: backward(dy, saved, 1 + 1e-9), args)  # pyright: ignore
    assert problems(wrong).keys() == {"w"}
    # The caller decides.
    assert not check(forward, backward, args, directions=2).notes


def test_few_elements_are_measured_if_forward_is_slow() -> None:
    def found(seconds: float, *, takes_complex: bool) -> int:
        return max_elements(lambda: time.sleep(seconds) if seconds else None, takes_complex)

    assert found(0, takes_complex=True) == found(0, takes_complex=False) == 2000
    assert 4 < found(0.02, takes_complex=True) <= 150
    assert found(0.02, takes_complex=False) == 4  # As many as directions.
