import numpy as np
import pytest
from helpers.kernel_bounds import ERF, EXP, TINY, U, assert_within, gamma
from helpers.kernel_twins import normals, poisoned

from tinygpt_np import ops
from tinygpt_np.compiled.kernels import gelu_exact

_, normal = normals(14)
sizes = pytest.mark.parametrize("size", [1, 2, 7, 15, 16, 17, 127, 1000, 70001])


def values(size: int) -> np.ndarray:
    x = normal(size) * np.float32(3)
    x[::3] *= np.float32(1e-3)
    x[-1] = 1e4 if size % 2 else -1e4
    return x


def cdf_error(x: np.ndarray) -> np.ndarray:
    """Return a bound on the absolute error of Φ(x)."""
    # x/√2 rounds twice, which moves Φ by x φ(x) times that; then erf, whose size is at most 1, and
    # the sum with 1, at most 2, all halved.
    return gamma(2) * np.abs(x) * density(x) * 1.01 + (ERF * U + 2 * U) / 2


def density(x: np.ndarray) -> np.ndarray:
    return np.exp(-x * x / 2) / (2 * np.pi) ** 0.5


@sizes
def test_forward_is_the_truth_but_for_rounding(size: int) -> None:
    x = values(size)
    x64 = x.astype(np.float64)
    truth, _ = ops.gelu_exact.forward(x64)
    y = poisoned(size)
    gelu_exact.forward_values(x, y)
    # One product more.
    assert_within(y, truth, np.abs(x64) * cdf_error(x64) + 2 * U * np.abs(truth))


@sizes
@pytest.mark.parametrize("in_place", [False, True])
def test_backward_is_the_truth_but_for_rounding(size: int, in_place: bool) -> None:
    x, dy = values(size), normal(size)
    x64, dy64 = x.astype(np.float64), dy.astype(np.float64)
    saved = ops.gelu_exact.forward(x64)[1]
    truth = ops.gelu_exact.backward(dy64, saved)
    bend = np.abs(x64) * density(x64)
    # x²/2 rounds once (halves are exact), which moves exp by U x²/2; then exp, its constant, two
    # products. Last the sum with Φ and the product by dy.
    dbend = bend * (U * x64 * x64 + gamma(EXP + 3))
    last = gamma(2) * (saved[2] + bend)
    dx = dy.copy() if in_place else poisoned(size)
    gelu_exact.backward_values(dx if in_place else dy, x, dx)
    assert_within(dx, truth, np.abs(dy64) * (cdf_error(x64) + dbend + last) + TINY)
