"""`check` and `assert_gradients`: right functions pass at every seed, wrong ones never do."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gradcheck import functions as f
from gradcheck.functions import W, X, cube, dcube

from tinygpt_np import gradcheck
from tinygpt_np.gradcheck import CheckError, Row
from tinygpt_np.gradcheck.measure import METHODS, Method

Forward = Callable[[np.ndarray], tuple[np.ndarray, Any]]
Backward = Callable[[np.ndarray, Any], Any]


def row_of(forward: Forward, backward: Backward, x: np.ndarray = X, **options: Any) -> Row:
    (row,) = gradcheck.check(forward, backward, (x,), **options).rows
    return row


def off_by(error: float) -> Backward:

    def backward(dy: np.ndarray, x: Any) -> np.ndarray:
        dx = dcube(dy, x)
        dx[3, 5] += error
        return dx

    return backward


def product(x: np.ndarray, y: np.ndarray) -> Any:
    return np.sum(x * x * y)


def dproduct(x: np.ndarray, y: np.ndarray) -> Any:
    return 2 * x * y, x * x


def test_a_plain_function_is_checked_with_its_gradient() -> None:
    args = {"x": X, "y": 2 + X}
    assert gradcheck.check(product, dproduct, args).ok
    report = gradcheck.check(product, lambda x, y: (x * y, x * x), args)  # pyright: ignore
    assert report.rows[0].cause.startswith("too small by a factor of 2")
    assert report.rows[1].ok


@pytest.mark.parametrize("method", METHODS)
def test_every_method_checks_scalars_and_finds_a_wrong_factor(method: Method) -> None:
    for x in (np.array(0.7), np.float64(0.7), np.float32(0.7)):
        assert gradcheck.check(np.sin, np.cos, (x,), method=method).ok
        assert not gradcheck.check(np.sin, np.sin, (x,), method=method).ok
    for x in (X, X.astype(np.float32)):
        wrong = row_of(cube, lambda dy, x: x.dtype.type(1.01) * dcube(dy, x), x, method=method)
        assert not wrong.ok


def test_a_small_error_in_one_element_is_found_in_its_place_or_along_directions() -> None:
    row = row_of(cube, off_by(1e-9))
    assert (row.verdict, row.index) == ("wrong", (3, 5))
    for method in METHODS[:3]:
        right = row_of(cube, dcube, method=method, directions=3)
        assert (right.ok, right.checked, right.by_element) == (True, 3, False)
        assert not row_of(cube, off_by(1e-3), method=method, directions=3).ok


def test_a_forward_that_is_not_complex_safe_is_measured_by_richardson() -> None:
    def by_conjugate(x: np.ndarray) -> tuple[np.ndarray, Any]:
        return x * np.conj(x) * x, x

    report = gradcheck.check(by_conjugate, dcube, (X,))
    assert (report.ok, report.rows[0].oracle) == (True, "Richardson")
    assert report.notes == ("forward is not complex-safe, so Richardson extrapolation was used",)
    # The complex step differentiates the conjugate with the opposite sign.
    assert not row_of(by_conjugate, lambda dy, x: dy * x * x).ok


def test_a_float32_kernel_is_compared_with_the_given_truth() -> None:
    def kernel(x: np.ndarray) -> tuple[np.ndarray, Any]:
        assert x.dtype == np.float32
        return x * x * x, x

    x = X.astype(np.float32)
    row = row_of(kernel, dcube, x, truth=cube)
    assert (row.verdict, row.oracle) == ("ok", "complex step")
    # A kernel that computes something else is wrong, even if its gradient is that of the truth.
    for factor, ok in ((1 + 1e-7, True), (1 + 1e-4, False), (0, False)):
        row = row_of(
            lambda x, factor=factor: (kernel(x)[0] * x.dtype.type(factor), x), dcube, x, truth=cube
        )
        assert row.ok is ok
        assert ok or "out differs from that of truth: off by" in row.problems[0]
    with pytest.raises(CheckError, match=r"truth must return out in the shape .*, not \(6,\)"):
        row_of(kernel, dcube, x, truth=lambda x: cube(x[0]))  # pyright: ignore


def test_assert_gradients_takes_the_options_of_check_and_raises_with_its_report() -> None:
    options: dict[str, Any] = {"directions": 2, "seed": 1, "truth": f.linear, "title": "t"}
    args, wrt = (X.astype(np.float32), W.astype(np.float32)), ("x", "w")
    gradcheck.assert_gradients(f.linear, f.dlinear, args, wrt, "central", **options)
    report = gradcheck.check(f.linear, f.doubled_weight, args, wrt, "central", **options)
    with pytest.raises(AssertionError) as error:
        gradcheck.assert_gradients(f.linear, f.doubled_weight, args, wrt, "central", **options)
    assert str(error.value) == f"\n{report}"
    with pytest.raises(CheckError, match=r"method must be one of .*, not 'guess'"):
        gradcheck.assert_gradients(cube, dcube, (X,), method="guess")  # pyright: ignore[reportArgumentType]


def softmax_of_shifted(shift: np.ndarray) -> tuple[np.ndarray, Any]:
    e = np.exp(X + shift - np.max(X + np.real(shift)))
    probs = e / e.sum()
    return probs, probs


def dsoftmax(dy: np.ndarray, probs: Any) -> np.ndarray:
    # Zero, but computed with rounding errors.
    return np.sum(probs * (dy - np.sum(probs * dy)), keepdims=True)[0]


# test_cases.py checks the operations.
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_there_are_no_false_alarms(method: Method, dtype: str) -> None:
    for seed in range(3):
        x = np.random.default_rng(seed).standard_normal((2, 5)).astype(dtype)
        kinked = np.where(x > 0.8, x * 0, x) if method != "taylor" else x
        for row in (
            row_of(cube, dcube, 10 * x, method=method, seed=seed),
            row_of(f.relu, f.drelu, kinked, method=method, seed=seed),
            row_of(softmax_of_shifted, dsoftmax, X[0, :1], method=method, seed=seed),
        ):
            assert row.ok, row


@pytest.mark.parametrize("factor", [1, 2, -1, 1.01])
def test_the_inverse_of_a_hilbert_matrix_cannot_be_measured(factor: float) -> None:
    for n in (10, 11, 12, 13):
        i = np.arange(float(n))
        row = row_of(
            lambda a: (y := np.linalg.inv(a), y),
            lambda dy, y: -factor * y.T @ dy @ y.T,
            1 / (i[:, None] + i + 1),
        )
        assert row.verdict == "unmeasured"


def test_digits_that_the_complex_step_loses_are_no_error() -> None:
    # |x| is not analytic, but far out its part of the loss is tiny.
    def forward(x: np.ndarray) -> tuple[Any, np.ndarray]:
        return np.sum(3 * x + 1e-4 * np.exp(-np.abs(x))), x

    def backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
        return dy * (3 - 1e-4 * np.sign(x) * np.exp(-np.abs(x)))

    x = np.array([11.0, -12.0, 12.5])
    assert row_of(forward, backward, x).ok
    assert not row_of(forward, lambda dy, x: backward(dy, x) * (1 + 1e-9), x).ok
