"""`check` and `assert_gradients`: right functions pass at every seed, wrong ones never do."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gradcheck.functions import (
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
from tinygpt_np.gradcheck import CheckError, Row
from tinygpt_np.gradcheck.measure import METHODS, Method

Forward = Callable[[np.ndarray], tuple[np.ndarray, Any]]
Backward = Callable[[np.ndarray, Any], Any]
every_method = pytest.mark.parametrize("method", METHODS)


def row_of(forward: Forward, backward: Backward, x: np.ndarray = X, **options: Any) -> Row:
    (row,) = gradcheck.check(forward, backward, (x,), **options).rows
    return row


def planted(place: Any, change: Callable[[Any], Any]) -> Backward:
    """Return the gradient of the cube with one element changed."""

    def backward(dy: np.ndarray, x: Any) -> np.ndarray:
        dx = dcube(dy, x)
        dx[place] = change(dx[place])
        return dx

    return backward


def sum_of_squares(x: np.ndarray) -> float:
    return float(np.sum(x * x))


def product(x: np.ndarray, y: np.ndarray) -> Any:
    return np.sum(x * x * y)


def dproduct(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return 2 * x * y, x * x


def test_a_plain_function_is_checked_with_its_gradient() -> None:
    report = gradcheck.check(sum_of_squares, np.positive, (X,))
    assert (report.ok, report.rows[0].oracle) == (False, "Richardson")
    assert report.rows[0].cause == "half of it: a factor of 2 is missing"
    assert gradcheck.check(product, dproduct, {"x": X, "y": 2 + X}).ok


@every_method
def test_a_scalar_is_checked(method: Method) -> None:
    for x in (np.array(0.7), np.float64(0.7), np.float32(0.7)):
        assert gradcheck.check(np.sin, np.cos, (x,), method=method).ok
        assert not gradcheck.check(np.sin, np.sin, (x,), method=method).ok


# Wrong gradients


def test_an_error_of_a_billionth_in_one_element_is_found() -> None:
    row = row_of(cube, planted((3, 5), lambda value: value * (1 + 1e-9)))
    assert (row.verdict, row.index) == ("wrong", (3, 5))


@every_method
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_method_finds_a_wrong_factor(method: Method, dtype: str) -> None:
    x = X.astype(dtype)
    assert not row_of(cube, lambda dy, x: x.dtype.type(1.01) * dcube(dy, x), x, method=method).ok


@pytest.mark.parametrize("method", ["complex", "central", "richardson"])
def test_directions_find_an_error_in_one_element(method: Method) -> None:
    right = row_of(cube, dcube, method=method, directions=3)
    assert (right.ok, right.checked, right.by_element) == (True, 3, False)
    assert not row_of(cube, planted((3, 5), lambda v: v + 1e-3), method=method, directions=3).ok


# Gradients of zero


def softmax_of_shifted(shift: np.ndarray) -> tuple[np.ndarray, Any]:
    e = np.exp(X + shift - np.max(X + np.real(shift)))
    probs = e / e.sum()
    return probs, probs


def dsoftmax(dy: np.ndarray, probs: Any) -> np.ndarray:
    return np.sum(probs * (dy - np.sum(probs * dy)), keepdims=True)[0]


@every_method
def test_a_gradient_of_zero_may_have_rounding_errors(method: Method) -> None:
    for seed in range(10):
        shift = np.array([0.3 * seed])
        assert row_of(softmax_of_shifted, dsoftmax, shift, method=method, seed=seed).ok


# Kinks


AT_ZERO = np.where(X > 0.8, 0.0, X)


@every_method
def test_the_gradient_at_a_kink_may_be_that_of_either_side(method: Method) -> None:
    x = AT_ZERO if method != "taylor" else X
    assert row_of(relu, drelu, x, method=method).ok
    assert row_of(relu, lambda dy, x: dy * (x >= 0), x, method=method).ok


# Forwards that are not complex-safe


def by_abs(x: np.ndarray) -> tuple[np.ndarray, Any]:
    return np.abs(x) ** 3, x


def dabs(dy: np.ndarray, x: Any) -> np.ndarray:
    return dy * 3 * x * np.abs(x)


def in_float32(x: np.ndarray) -> tuple[np.ndarray, Any]:
    return (x.astype(np.float32) ** 3).astype(np.float64), x


def test_a_forward_that_is_not_complex_safe_is_measured_by_richardson() -> None:
    report = gradcheck.check(by_abs, dabs, (X,))
    assert report.ok
    assert report.rows[0].oracle == "Richardson"
    assert report.notes == ("forward is not complex-safe, so Richardson extrapolation was used",)
    assert not row_of(by_abs, lambda dy, x: 1.001 * dabs(dy, x)).ok


def test_a_gradient_that_only_the_complex_step_confirms_is_wrong() -> None:
    def by_conjugate(x: np.ndarray) -> tuple[np.ndarray, Any]:
        return x * np.conj(x) * x, x

    # The complex step differentiates the conjugate with the opposite sign.
    assert not row_of(by_conjugate, lambda dy, x: dy * x * x).ok
    assert row_of(by_conjugate, dcube).ok


@every_method
def test_a_forward_that_rounds_to_float32_inside_is_never_right(method: Method) -> None:
    for seed in range(4):
        assert not row_of(in_float32, dcube, method=method, seed=seed).ok
    problem = row_of(in_float32, dcube).problems[0]
    assert re.search(r"\d+ of 24 derivatives could not be measured to 1e-09", problem)
    assert "forward is rough, or rounds more than its dtype" in problem


def test_a_float32_kernel_is_compared_with_the_given_truth() -> None:
    def kernel(x: np.ndarray) -> tuple[np.ndarray, Any]:
        assert x.dtype == np.float32
        return x * x * x, x

    x = X.astype(np.float32)
    row = row_of(kernel, dcube, x, truth=cube)
    assert (row.verdict, row.oracle) == ("ok", "complex step")
    # A kernel that computes something else is wrong, even if its gradient is its own.
    assert not row_of(kernel, dcube, x, truth=by_abs).ok


# Seeds and assertions


def test_the_report_depends_on_the_seed_alone() -> None:
    one, same, other = (gradcheck.check(cube, dcube, (X,), seed=seed).rows for seed in (3, 3, 4))
    assert one == same
    assert one != other


def test_assert_gradients_raises_with_the_report() -> None:
    gradcheck.assert_gradients(linear, dlinear, (X, W))

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


@every_method
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_there_are_no_false_alarms(method: Method, dtype: str) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x, w, scale = (rng.standard_normal(shape).astype(dtype) for shape in ((2, 5), (5, 3), 5))
        for report in (
            gradcheck.check(linear, dlinear, (x, w), None, method, seed=seed),
            gradcheck.check(layer_norm, dlayer_norm, (x, scale), None, method, seed=seed),
            gradcheck.check(cube, dcube, (10 * x,), None, method, seed=seed),
            gradcheck.check(relu, drelu, (x,), None, method, seed=seed),
        ):
            assert report.ok, report
