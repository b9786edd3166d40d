# pyright: basic
"""Monte Carlo arithmetic: the noise reaches every operation, and measures what rounding does."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinygpt_np.gradcheck.oracles import EPS
from tinygpt_np.gradcheck.rounding import FACTOR, NOISE, Noise, NoisyArray, Rounding, noisy_view

Code = Callable[[Any], Any]
X = np.random.default_rng(0).standard_normal((3, 3)) + 3 * np.eye(3)


def buffered(x: Any) -> Any:
    out = np.zeros(x.shape)
    out[...] = 3 * x
    return out


def added_at(x: Any) -> Any:
    out = np.zeros(3)
    np.add.at(out, [0, 1, 0], x[0])
    return out


def in_place(x: Any) -> Any:
    out = x.copy()
    out *= 1.5
    np.multiply(out, x, out=out)
    return out


ROUNDING: dict[str, Code] = {
    "a product": lambda x: x * x,
    "a function": np.tanh,
    "sum": lambda x: x.sum(axis=0),
    "mean": np.mean,
    "var": lambda x: np.var(x, axis=1),
    "@": lambda x: x @ x,
    "dot": lambda x: x.dot(x),
    "einsum": lambda x: np.einsum("ij,jk->i", x, x),
    "tensordot": lambda x: np.tensordot(x, x),
    "inv": np.linalg.inv,
    "norm": np.linalg.norm,
    "svd": lambda x: np.linalg.svd(x)[1],
    "cumsum": lambda x: x.cumsum(),
    "where, then a sum": lambda x: np.where(x > 0, x, 0) + 1,
    "concatenate, then a sum": lambda x: np.concatenate([x, x]) + 1,
    "a buffer": buffered,
    "add.at": added_at,
    "in place": in_place,
    "a complex product": lambda x: (x + 1j) * (x - 2j),
}
EXACT: dict[str, Code] = {
    "maximum": lambda x: np.maximum(x, 0.5),
    "max": lambda x: x.max(axis=1),
    "sort": lambda x: np.sort(x, axis=1),
    "where": lambda x: np.where(x > 0, x, -x),
    "transpose and index": lambda x: x.T[::2],
    "clip": lambda x: np.clip(x, -0.5, 0.5),
    "integers": lambda x: np.argmax(x, axis=1) + 1,
}


def with_noise(code: Code, size: float) -> np.ndarray:
    with Noise.of(size, 1):
        return np.array(code(noisy_view(X.copy())), complex)


@pytest.mark.parametrize("name", ROUNDING)
def test_noise_is_added_where_results_are_rounded(name: str) -> None:
    code = ROUNDING[name]
    right = np.array(code(X), complex)
    np.testing.assert_array_equal(with_noise(code, 0.0), right)
    moved = np.abs(with_noise(code, NOISE) - right)
    assert (moved > 0).sum() >= moved.size - 1
    assert moved.max() < 200 * NOISE * np.abs(right).max()


@pytest.mark.parametrize("name", EXACT)
def test_no_noise_is_added_to_exact_results(name: str) -> None:
    np.testing.assert_array_equal(with_noise(EXACT[name], NOISE), EXACT[name](X))


def test_results_stay_noisy_and_the_data_are_not_changed() -> None:
    x = noisy_view(X.copy())
    with Noise.of(NOISE, 0):
        for code in (*ROUNDING.values(), *EXACT.values()):
            code(x)
        assert isinstance(np.where(x > 0, x, 0), NoisyArray)
        assert isinstance(x.sum(), NoisyArray)
    np.testing.assert_array_equal(np.asarray(x), X)


def sensitivity(code: Code, x: np.ndarray) -> np.ndarray:
    found = Rounding(lambda: {"y": code(noisy_view(x.copy()))}).of("y")
    assert found is not None
    return found


def test_the_sensitivity_includes_cancellation_and_absorption() -> None:
    x = np.array([0.3, 0.7])
    assert 0.2 < sensitivity(lambda x: 3 * x, x)[1] < 3
    assert 1e5 < sensitivity(lambda x: (x + 1e6) - 1e6, x)[0] < 2e6
    # 1 - tanh² far out, and the error that float32 has there.
    far = np.array([4.0, 5.0])
    found = FACTOR * sensitivity(lambda x: 1 - np.tanh(x) ** 2, far) * np.finfo("float32").eps
    exact = 1 / np.cosh(far) ** 2
    single = 1 - np.tanh(far.astype("float32")) ** 2
    assert (np.abs(single - exact) < found).all()
    assert (found < 100 * np.abs(exact)).all()
    inverse = sensitivity(lambda x: np.linalg.inv(x.reshape(2, 2)), np.array([1, 1, 1, 1 + 1e-5]))
    assert (inverse * EPS > 1e-7).all()


def test_an_effect_that_does_not_shrink_with_the_noise_is_a_comparison_and_does_not_count() -> None:
    def tied(x: Any) -> Any:
        a, b = 3 * x, 3 * x
        return np.where(a > b, 100.0, -100.0) + x

    assert (sensitivity(tied, np.array([0.3, 0.7])) < 1000).all()


def test_a_result_without_correct_digits_is_infinitely_sensitive() -> None:
    found = sensitivity(lambda x: np.sin(1e18 * x) + 0 * x, np.array([0.3, 0.7]))
    assert np.isinf(found).all()
    # With noise, the inverse of a singular matrix is far smaller.
    i = np.arange(12.0)
    hilbert = 1 / (i[:, None] + i + 1)
    assert np.isinf(sensitivity(lambda x: np.linalg.inv(x) ** 2, hilbert)).all()


def test_code_that_does_not_take_noisy_arrays_is_of_unknown_sensitivity() -> None:
    def refuses(x: Any) -> Any:
        raise TypeError("only plain arrays")

    for code in (refuses, lambda x: np.array(x.tolist()), lambda x: {"z": x}):
        assert Rounding(lambda code=code: {"y": code(noisy_view(X.copy()))}).of("y") is None
    assert Noise.size == 0
