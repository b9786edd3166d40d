"""What the tool promises to whoever calls it: what it catches, and whom it does not accuse."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gradcheck.functions import (
    SCALE,
    W,
    X,
    cube,
    dcube,
    dlayer_norm,
    dlinear,
    drelu,
    layer_norm,
    linear,
    relu,
)

from tinygpt_np import gradcheck
from tinygpt_np.gradcheck import CheckError, Report, Row
from tinygpt_np.gradcheck.measure import METHODS, Method

Forward = Callable[[np.ndarray], tuple[np.ndarray, Any]]
Backward = Callable[[np.ndarray, Any], Any]
every_method = pytest.mark.parametrize("method", METHODS)


def judged(forward: Forward, backward: Backward, x: np.ndarray = X, **options: Any) -> Row:
    (row,) = gradcheck.check(forward, backward, (x,), **options).rows
    return row


def planted(place: Any, change: Callable[[Any], Any]) -> Backward:
    """The gradient of the cube, with one place changed."""

    def backward(dy: np.ndarray, x: Any) -> np.ndarray:
        dx = dcube(dy, x)
        dx[place] = change(dx[place])
        return dx

    return backward


# What is right


@every_method
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_right_gradients_are_right(method: Method, dtype: str) -> None:
    x, w, scale = (array.astype(dtype) for array in (X, W, SCALE))
    assert gradcheck.check(cube, dcube, (x,), method=method).ok
    assert gradcheck.check(linear, dlinear, (x, w), method=method).ok
    assert gradcheck.check(layer_norm, dlayer_norm, (x, scale), method=method).ok


@every_method
def test_a_plain_function_is_checked_with_its_gradient(method: Method) -> None:
    def loss(x: np.ndarray) -> Any:
        return np.sum(np.sin(x) * x)

    def gradient(x: np.ndarray) -> np.ndarray:
        return np.cos(x) * x + np.sin(x)

    assert gradcheck.check(loss, gradient, (X,), method=method).ok
    assert not gradcheck.check(loss, np.cos, (X,), method=method).ok


def test_a_plain_function_may_return_a_python_float() -> None:
    def loss(x: np.ndarray) -> float:
        return float(np.sum(x * x))

    report = gradcheck.check(loss, np.positive, (X,))
    assert not report.ok
    assert report.rows[0].oracle == "Richardson"
    assert report.rows[0].cause == "half of it: a factor of 2 is missing"


def test_a_plain_function_may_have_several_arguments() -> None:
    def loss(x: np.ndarray, y: np.ndarray) -> Any:
        return np.sum(x * x * y)

    def gradient(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return 2 * x * y, x * x

    assert gradcheck.check(loss, gradient, {"x": X, "y": 2 + X}).ok


@every_method
def test_a_scalar_is_checked(method: Method) -> None:
    for x in (np.array(0.7), np.float64(0.7), np.float32(0.7)):
        assert gradcheck.check(np.sin, np.cos, (x,), method=method).ok
        assert not gradcheck.check(np.sin, np.sin, (x,), method=method).ok


def test_a_scalar_is_checked_along_directions() -> None:
    x = np.array(0.7)
    assert gradcheck.check(np.sin, np.cos, (x,), directions=2).ok
    # A gradient that is missing is drawn too.
    assert "there is no gradient" in str(gradcheck.check(np.sin, print, (x,), directions=2))


# What is wrong


@pytest.mark.parametrize("place", [(0, 0), (1, 4), (3, 5)])
def test_a_billionth_in_one_element_is_caught(place: tuple[int, int]) -> None:
    row = judged(cube, planted(place, lambda value: value * (1 + 1e-9)))
    assert row.verdict == "wrong"
    assert row.index == place


def test_a_tiny_element_among_large_ones_is_caught() -> None:
    x = X.copy()
    x[2, 3], x[0, 0] = 1e-4, 1e3
    # Its gradient is 3e-8 beside one of 3e6: ten billionths of it are lost in any norm.
    row = judged(cube, planted((2, 3), lambda value: 2 * value), x)
    assert row.verdict == "wrong" or row.bound > 1
    assert judged(cube, planted((2, 3), lambda value: value + 1e-5), x).index == (2, 3)


@every_method
@pytest.mark.parametrize("factor", [1.01, 0.99, -1.0, 0.0, 2.0])
def test_a_hundredth_is_caught_by_every_method(method: Method, factor: float) -> None:
    row = judged(cube, lambda dy, x: factor * dcube(dy, x), method=method)
    assert row.verdict == "wrong"


@every_method
def test_a_hundredth_is_caught_in_float32(method: Method) -> None:
    x = X.astype(np.float32)
    wrong = np.float32(1.01)
    assert judged(cube, dcube, x, method=method).ok
    assert not judged(cube, lambda dy, x: wrong * dcube(dy, x), x, method=method).ok


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@every_method
def test_what_is_not_finite_is_caught(method: Method, value: float) -> None:
    row = judged(cube, planted((1, 2), lambda _: value), method=method)
    assert row.problems[0] == f"not finite: {value} at (1, 2)"


@every_method
def test_the_float64_gradient_of_float32_is_caught(method: Method) -> None:
    x = X.astype(np.float32)
    row = judged(cube, lambda dy, x: dcube(dy, x).astype(np.float64), x, method=method)
    assert row.problems[0] == "the dtype must be float32, not float64"


def test_another_shape_is_caught() -> None:
    row = judged(cube, lambda dy, x: dcube(dy, x).T)
    assert row.problems[0] == "the shape must be (4, 6), not (6, 4); it looks transposed"


@pytest.mark.parametrize("method", ["complex", "central", "richardson"])
def test_directions_catch_what_is_wrong_anywhere(method: Method) -> None:
    assert judged(cube, dcube, method=method, directions=3).ok
    for place in np.ndindex(X.shape):
        wrong = planted(place, lambda value: value + 1e-3)
        assert not judged(cube, wrong, method=method, directions=3).ok, place


def test_along_directions_as_many_are_checked_as_were_asked_for() -> None:
    row = judged(cube, dcube, directions=5)
    assert (row.checked, row.by_element) == (5, False)


# What is zero


def softmax_of_shifted(shift: np.ndarray) -> tuple[np.ndarray, Any]:
    e = np.exp(X + shift - np.max(X + np.real(shift)))
    probs = e / e.sum()
    return probs, probs


def dsoftmax(dy: np.ndarray, probs: Any) -> np.ndarray:
    return np.sum(probs * (dy - np.sum(probs * dy)), keepdims=True)[0]


@every_method
def test_a_gradient_of_zero_may_be_rounding(method: Method) -> None:
    for seed in range(20):
        shift = np.array([0.3 * seed])
        assert judged(softmax_of_shifted, dsoftmax, shift, method=method, seed=seed).ok


@pytest.mark.parametrize("error", [1e-9, 1e-6])
def test_a_gradient_of_zero_may_be_no_more_than_rounding(error: float) -> None:
    row = judged(softmax_of_shifted, lambda dy, saved: dsoftmax(dy, saved) + error, np.array([0.3]))
    assert row.verdict == "wrong"
    assert row.cause.startswith("it should be zero")


# Kinks


AT_ZERO = np.where(X > 0.8, 0.0, X)


@every_method
def test_either_side_of_a_kink_will_do(method: Method) -> None:
    x = AT_ZERO if method != "taylor" else X
    assert judged(relu, drelu, x, method=method).ok
    assert judged(relu, lambda dy, x: dy * (x >= 0), x, method=method).ok


def test_a_kink_excuses_nothing_elsewhere() -> None:
    number = np.arange(24).reshape(4, 6)

    def backward(dy: np.ndarray, x: Any) -> np.ndarray:
        return drelu(dy, x) * np.where(number == 7, 1 + 1e-9, 1)

    row = judged(relu, backward, np.where(number == 5, 0, np.abs(X)))
    assert (row.verdict, row.skipped, row.index) == ("wrong", 1, (1, 1))


def test_with_nothing_but_kinks_nothing_is_proven() -> None:
    row = judged(relu, drelu, np.zeros((2, 3)))
    assert (row.verdict, row.skipped, row.checked) == ("wrong", 6, 0)
    assert row.problems == ("nothing could be checked",)


def test_along_directions_through_a_kink_nothing_is_proven() -> None:
    for method in METHODS:
        row = judged(relu, drelu, AT_ZERO, method=method, directions=3)
        assert row.problems == ("nothing could be checked",)


def test_the_notes_count_the_kinks() -> None:
    report = gradcheck.check(relu, drelu, (AT_ZERO,))
    kinks = int((X > 0.8).sum())
    assert report.notes == (f"skipped: {kinks} at a kink of forward, where there is no derivative",)


# Forwards that take no complex numbers


def by_abs(x: np.ndarray) -> tuple[np.ndarray, Any]:
    return np.abs(x) ** 3, x


def dabs(dy: np.ndarray, x: Any) -> np.ndarray:
    return dy * 3 * x * np.abs(x)


def in_float32(x: np.ndarray) -> tuple[np.ndarray, Any]:
    return (x.astype(np.float32) ** 3).astype(np.float64), x


def test_what_is_not_complex_safe_is_measured_by_richardson_and_says_so() -> None:
    report = gradcheck.check(by_abs, dabs, (X,))
    assert report.ok
    assert report.rows[0].oracle == "Richardson"
    assert report.notes == ("forward is not complex-safe, so Richardson extrapolation was used",)


def test_what_is_not_complex_safe_is_not_passed_for_that() -> None:
    assert not judged(by_abs, lambda dy, x: 1.001 * dabs(dy, x)).ok


def by_conjugate(x: np.ndarray) -> tuple[np.ndarray, Any]:
    return x * np.conj(x) * x, x


def test_a_gradient_that_is_right_for_the_complex_step_alone_is_wrong() -> None:
    # Of x x̄ x, it takes half the slope of the middle for its opposite.
    assert not judged(by_conjugate, lambda dy, x: dy * x * x).ok
    assert judged(by_conjugate, dcube).ok


@every_method
def test_a_forward_that_rounds_to_float32_inside_is_never_passed(method: Method) -> None:
    for seed in range(10):
        assert not judged(in_float32, dcube, method=method, seed=seed).ok


def test_a_forward_that_rounds_to_float32_inside_could_not_be_measured() -> None:
    row = judged(in_float32, dcube)
    assert re.search(r"\d+ of 24 derivatives could not be measured to 1e-09", row.problems[0])
    assert "forward is rough, or rounds more than its dtype" in row.problems[0]


def test_a_kernel_of_float32_is_held_against_the_truth_it_is_given() -> None:
    def kernel(x: np.ndarray) -> tuple[np.ndarray, Any]:
        assert x.dtype == np.float32
        return x * x * x, x

    x = X.astype(np.float32)
    row = judged(kernel, dcube, x, truth=cube)
    assert (row.verdict, row.oracle) == ("ok", "complex step")
    # A kernel that computes something else is not the truth, whatever its gradient.
    assert not judged(kernel, dcube, x, truth=by_abs).ok


# Reports that can be reproduced


def text(seed: int) -> str:
    return gradcheck.check(layer_norm, dlayer_norm, (X, SCALE), seed=seed).to_json()


def test_the_same_seed_gives_the_same_report_to_the_last_bit() -> None:
    assert text(3) == text(3)


def test_another_seed_gives_another_upstream_gradient() -> None:
    assert text(3) != text(4)


# For tests


def test_assert_gradients_says_nothing_of_right_ones(capsys: pytest.CaptureFixture[str]) -> None:
    gradcheck.assert_gradients(linear, dlinear, (X, W))
    assert capsys.readouterr().out == ""


def test_assert_gradients_raises_with_the_table() -> None:
    def backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray]:
        dx, dw = dlinear(dy, saved)
        return dx, 2 * dw

    report = gradcheck.check(linear, backward, (X, W), seed=6)
    with pytest.raises(AssertionError) as error:
        gradcheck.assert_gradients(linear, backward, (X, W), seed=6)
    assert str(error.value) == f"\n{report}"
    assert "likely cause: too large by a factor of 2" in str(report)


def test_assert_gradients_takes_the_same_options_as_check() -> None:
    x = X.astype(np.float32)
    gradcheck.assert_gradients(
        cube, dcube, (x,), ("x",), "central", directions=2, seed=1, truth=cube, title="t"
    )
    with pytest.raises(CheckError, match=r"method must be one of .*, not 'guess'"):
        gradcheck.assert_gradients(cube, dcube, (x,), method="guess")  # pyright: ignore[reportArgumentType]


def reports() -> list[Report]:
    """What right functions give, at many seeds, with points of their own."""
    found: list[Report] = []
    for seed in range(48):
        rng = np.random.default_rng(seed)
        dtype = ("float64", "float32")[seed % 2]
        x, scale = (rng.standard_normal(shape).astype(dtype) for shape in ((2, 5), (5,)))
        method = METHODS[seed // 2 % 4]
        found.append(gradcheck.check(layer_norm, dlayer_norm, (x, scale), None, method, seed=seed))
        found.append(gradcheck.check(cube, dcube, (10 * x,), None, method, seed=seed))
        found.append(gradcheck.check(relu, drelu, (x,), None, method, seed=seed))
    return found


def test_nobody_is_accused_who_is_right() -> None:
    assert [str(report) for report in reports() if not report.ok] == []
