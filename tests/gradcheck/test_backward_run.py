"""The rules that a backward can break, and the memory layouts of its inputs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gradcheck.functions import X, cube, dcube

from tinygpt_np.gradcheck import Report
from tinygpt_np.gradcheck.function_check import FunctionCheck

Forward = Callable[[np.ndarray], tuple[np.ndarray, Any]]
Backward = Callable[[np.ndarray, Any], Any]


def problems(report: Report) -> dict[str, str]:
    return {row.name: "; ".join(row.problems) for row in report.rows if not row.ok}


kept: list[np.ndarray] = []
buffers = {char: np.empty(X.shape, char) for char in "dD"}


def changes_its_input(dy: np.ndarray, x: Any) -> np.ndarray:
    dx = dy * 3 * x * x
    x[:] = 0
    return dx


def changes_the_upstream_gradient(dy: np.ndarray, x: Any) -> np.ndarray:
    return np.multiply(dy, 3 * x * x, out=dy).copy()


def accumulates(dy: np.ndarray, x: Any) -> np.ndarray:
    kept.append(dy * 3 * x * x)
    return np.sum(kept, axis=0)


def cube_then_double(x: np.ndarray) -> tuple[np.ndarray, Any]:
    saved = x.copy()
    x *= 2
    return saved * saved * saved, saved


def saves_in_a_buffer(x: np.ndarray) -> tuple[np.ndarray, Any]:
    # A complex buffer for the complex step, so that only the sharing is wrong.
    saved = buffers[x.dtype.char]
    saved[...] = x
    return x * x * x, saved


def saves_its_output(x: np.ndarray) -> tuple[np.ndarray, Any]:
    out = x + 1
    return out, out


BREAKING: list[tuple[Forward, Backward, str]] = [
    (cube, changes_the_upstream_gradient, "backward changes its input dout"),
    (cube, changes_its_input, "backward changes its input x"),
    (cube, lambda dy, x: np.multiply(dy, 3 * x * x, out=buffers["d"]),
     "a second backward overwrites the gradient of the first"),
    (cube, accumulates, "a second backward differs: the first changed what was saved"),
    # "K" is the order of the elements in memory, which is theirs only for C-contiguous arrays.
    (cube, lambda dy, x: (dy.ravel("K") * 3 * x.ravel("K") ** 2).reshape(dy.shape),
     "with Fortran-ordered inputs: off by"),
    (cube, lambda dy, x: dy * 3 * np.add(x, 0, out=x) * x,
     "with read-only inputs: it raises ValueError"),
    (cube, lambda dy, x: dy * 3 * (x if x.base is None else np.resize(x.base, x.shape)) ** 2,
     "with strided inputs: off by"),
    (cube, lambda dy, x: dy * 3 * x * x * (1 if all(dy.strides) else 2),
     "with broadcast (stride 0) inputs: off by"),
    (cube, lambda dy, x: dy * 3 * x * x * (1 if all(x.strides) else 0.5),
     "with broadcast (stride 0) inputs: off by"),
    (cube, lambda dy, x: np.full(x.shape, 1e200), "e+199 of its norm"),
    (cube, lambda dy, x: np.add(x, dy * 3 * x * x - x, out=x),
     "the gradient shares its memory with x"),
    (cube_then_double, dcube, "forward changes its input x"),
    (saves_in_a_buffer, dcube, "after another forward it differs: that changed what was saved"),
    (lambda x: (x * x * x, [3 * x * x]), lambda dy, saved: dy * saved.pop(),
     "a second backward raises IndexError"),
    (saves_its_output, lambda dy, out: dy[:, :], "the gradient shares its memory with dout"),
    (saves_its_output, lambda dy, out: np.add(dy, 0, out=out),
     "the gradient shares its memory with out"),
]  # fmt: skip


@pytest.mark.parametrize(("forward", "backward", "problem"), BREAKING)
def test_a_pair_that_breaks_a_rule_is_wrong(
    forward: Forward, backward: Backward, problem: str
) -> None:
    assert problem in problems(FunctionCheck(forward, (X,)).report(backward))["x"]


def test_a_forward_that_changes_an_input_without_a_gradient_is_wrong() -> None:
    def forward(x: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, Any]:
        ids += 1
        return x * x * x, x

    report = FunctionCheck(forward, (X, np.array([0, 2, 0]))).report(dcube)
    assert problems(report) == {"x": "forward changes its input ids"}


def test_rounding_that_equal_rows_magnify_is_no_problem_of_broadcast_inputs() -> None:
    def forward(x: np.ndarray, gain: np.ndarray) -> tuple[np.ndarray, Any]:
        centered = x - x.mean(axis=0)
        std = np.sqrt((centered * centered).mean(axis=0) + 1e-14)
        return centered / std * gain, (centered / std, std, gain)

    def backward(dy: np.ndarray, saved: Any) -> Any:
        xhat, std, gain = saved
        dxhat = dy * gain
        dx = (dxhat - dxhat.mean(axis=0) - xhat * (dxhat * xhat).mean(axis=0)) / std
        return dx, (dy * xhat).sum(axis=0)

    for seed in range(20):
        x = np.random.default_rng(seed).standard_normal((50, 7))
        assert FunctionCheck(forward, (x, x[0]), seed=seed).report(backward).ok
