# pyright: basic
"""Measuring a gradient: which oracle is used, how precise it is, kinks and their groups."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinygpt_np.gradcheck.measure import (
    METHODS,
    Measurement,
    Method,
    measure,
    measure_all,
    that_depend,
)
from tinygpt_np.gradcheck.oracles import EPS
from tinygpt_np.gradcheck.probes import Probes
from tinygpt_np.gradcheck.subject import Subject

Loss = Callable[[np.ndarray], Any]
X: np.ndarray = np.array([[0.7, -1.3, 0.4], [1.1, 0.2, -0.6]])
WEIGHTS: np.ndarray = np.array([[0.3, -1.2, 0.8], [1.7, -0.4, 0.9]])
SINGLE = float(np.finfo("float32").eps)


def measured(
    terms: Loss, x: np.ndarray = X, method: Method = "complex", eps: float = EPS
) -> Measurement:
    subject = Subject(lambda tensors: terms(tensors["x"]), {"x": x}, eps)
    return measure(subject, "x", Probes(x.shape), method, np.random.default_rng(0))


def smooth(x: np.ndarray) -> Any:
    return WEIGHTS * np.sin(x)


GRADIENT = (WEIGHTS * np.cos(X)).reshape(-1)


def raises_on_complex(x: np.ndarray) -> Any:
    if np.iscomplexobj(x):
        raise RuntimeError("compiled for floats")
    return smooth(x)


# Each is Σ w sin x on real numbers.
UNSAFE: dict[str, Loss] = {
    "a conjugate of one element": lambda x: smooth(np.where(X == 0.4, np.conj(x), x)),
    "a conjugate of a small term": lambda x: smooth(x) + 1e-6 * (np.conj(x) - np.real(x)),
    "the real part": lambda x: smooth(np.real(x)),
    "a cast to floats": lambda x: smooth(x.astype(np.float64)),
    "a kernel that raises": raises_on_complex,
}


def test_a_smooth_loss_is_measured_by_the_complex_step_and_others_by_richardson() -> None:
    found = measured(smooth)
    assert found.method == "complex"
    np.testing.assert_allclose(found.values, GRADIENT, rtol=4 * EPS)
    assert (found.errors <= 2 * EPS * np.abs(GRADIENT)).all()
    for name, loss in UNSAFE.items():
        found = measured(loss)
        assert found.method == "richardson", name
        np.testing.assert_allclose(found.values, GRADIENT, rtol=1e-10)
        assert found.usable.all()
        assert not found.kinks.any()


DOMAINS: list[tuple[Loss, Loss]] = [
    (np.log, lambda x: 1 / x),
    (np.sqrt, lambda x: 0.5 / np.sqrt(x)),
    (lambda x: x**2.5, lambda x: 2.5 * x**1.5),
    (lambda x: 1 / x, lambda x: -1 / x**2),
    (lambda x: np.exp(-x) / x, lambda x: -np.exp(-x) * (1 / x + 1 / x**2)),
]


@pytest.mark.parametrize("number", range(len(DOMAINS)))
def test_a_step_out_of_the_domain_says_nothing_about_complex_numbers(number: int) -> None:
    terms, derivative = DOMAINS[number]
    x = np.array([1e-12, 2e-9, 1e-4, 0.3, 20.0])
    found = measured(terms, x)
    assert found.method == "complex"
    np.testing.assert_allclose(found.values, derivative(x), rtol=1e-13)
    found = measured(lambda x: terms(np.real(x)), x)
    assert found.method == "richardson"
    np.testing.assert_allclose(found.values, derivative(x), rtol=1e-8)


def test_steep_functions_are_safe_for_the_complex_step() -> None:
    def softmax(x: np.ndarray) -> Any:
        e = np.exp(x - np.real(x).max())
        return WEIGHTS * e / e.sum()

    for scale in (1, 10, 30, 100, 1000):
        for seed in range(10):
            x = scale * np.random.default_rng(seed).standard_normal(X.shape)
            assert measured(softmax, x).method == "complex", (scale, seed)


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_that_does_not_depend_on_a_tensor_has_gradient_zero(method: Method) -> None:
    found = measured(lambda x: np.float64(3), method=method)
    assert found.method == method
    assert (found.values == 0).all()
    assert found.usable.all()


def test_small_elements_are_measured_as_precisely_as_large_ones() -> None:
    x = np.array([1.0, 1e-11, -3.0])
    bounds: dict[Method, float] = {"complex": 1e-15, "richardson": 1e-9, "central": 1e-6}
    for method, near in bounds.items():
        np.testing.assert_allclose(measured(lambda x: x * x, x, method).values, 2 * x, rtol=near)
    # A term that changes only over large steps has a derivative with rounding errors.
    curve = that_depend(lambda t: np.array([np.tanh(20 + 20 * t), 7.0, t * t]), (1.0, 1.0))
    assert len(curve(0.0)) == 2


def test_a_smooth_bend_is_no_kink_however_narrow() -> None:
    found = measured(lambda x: np.sqrt(x * x + 1e-20), np.array([0.0, 1e-11, 3.0]))
    assert not found.kinks.any()
    np.testing.assert_allclose(found.values, [0, 0.1 / np.sqrt(1.01), 1], atol=1e-13)


KINKED: list[tuple[Loss, np.ndarray, list[int]]] = [
    (lambda x: WEIGHTS * np.maximum(x, 0), X * (X != 0.4), [2]),
    (lambda x: WEIGHTS * np.abs(x), X * (X > 0.3), [1, 4, 5]),
    (lambda x: WEIGHTS * np.clip(x, -0.6, 0.7), X, [0, 5]),
    # Two elements are the largest.
    (lambda x: np.max(x) * 3, np.where(X == 0.7, 1.1, X), [0, 3]),
]


def test_kinks_are_found_with_the_derivatives_from_both_sides() -> None:
    for loss, x, places in KINKED:
        found = measured(loss, x)
        assert np.flatnonzero(found.kinks).tolist() == places
        assert found.usable.all()
        for number in range(x.size):
            step = 1e-6 * Probes(x.shape)[number]
            left = np.sum(loss(x) - loss(x - step)) / 1e-6
            right = np.sum(loss(x + step) - loss(x)) / 1e-6
            for side in (left, right):
                assert np.abs(found.usual[:, number] - side).min() < 1e-8


def test_tied_elements_have_a_kink_even_if_each_alone_has_none() -> None:
    # Moving one of three equal elements does not move their median.
    found = measured(lambda x: 3 * np.sort(x)[1], np.array([2.0, 2.0, 2.0]))
    assert found.kinks.all()
    for value in (0, 3):
        assert np.abs(found.usual - value).min(axis=0) == pytest.approx(np.zeros(3), abs=1e-9)


def test_a_jump_has_the_derivative_of_its_sides() -> None:
    for terms in (lambda x: np.floor(np.real(x)) * 5 + 2 * x, lambda x: np.floor(x) * 5 + 2 * x):
        found = measured(terms, np.array([1.0, 0.5, -3.0]))
        np.testing.assert_allclose(found.values, 2, rtol=1e-9)
        assert found.usable.all()


def test_equal_elements_at_kinks_form_groups_also_across_tensors() -> None:
    def pool(tensors: dict[str, np.ndarray]) -> Any:
        return WEIGHTS.ravel()[:3] * tensors["x"].reshape(3, 2).max(-1)

    x = np.array([1.0, 1.0, 2.0, 3.0, 3.0, 3.0])
    (found,) = measure_all(Subject(pool, {"x": x}), "complex", None, np.random.default_rng(0))
    assert np.flatnonzero(found.kinks).tolist() == [0, 1, 4, 5]
    groups = {float(x[group.places["x"][0]]): group for group in found.groups}
    assert groups[1.0].value == pytest.approx(WEIGHTS[0, 0])
    assert groups[3.0].places["x"].tolist() == [4, 5]

    def largest(tensors: dict[str, np.ndarray]) -> Any:
        return 2.0 * np.maximum(tensors["a"], tensors["b"])

    a, b = np.array([1.0, 2.0]), np.array([1.0, 5.0])
    subject = Subject(largest, {"a": a, "b": b})
    for each in measure_all(subject, "complex", None, np.random.default_rng(0)):
        assert [sorted(group.places) for group in each.groups] == [["a", "b"]]
        assert each.groups[0].value == pytest.approx(2)
    # A group that has a kink itself is none.
    found = measured(lambda x: np.maximum(x, 0), np.zeros(3))
    assert found.kinks.all()
    assert found.groups == ()


def test_a_loss_that_rounds_to_float32_is_resolved_for_float32_gradients_only() -> None:
    def rough(x: np.ndarray) -> Any:
        return smooth(x.astype(np.float32))

    for seed in range(8):
        found = measured(rough, np.random.default_rng(seed).standard_normal((2, 3)))
        assert found.method == "richardson"
        # By chance, a few elements may look smooth.
        assert found.unresolved.mean() > 0.5
    found = measured(rough, eps=SINGLE)
    assert found.usable.all()
    np.testing.assert_allclose(found.values, GRADIENT, rtol=1e-4)


def test_a_derivative_that_is_not_finite_is_not_resolved() -> None:
    found = measured(lambda x: np.sqrt(x), np.array([4.0, 0.0, 9.0]))
    assert found.unresolved.tolist() == [False, True, False]
    np.testing.assert_allclose(found.values[[0, 2]], [1 / 4, 1 / 6])
    found = measured(lambda x: 1 + 0 * np.sum(x) + np.sum(x - x), method="central")
    assert found.usable.all()


def test_the_sensitivity_to_rounding_is_that_of_each_element() -> None:
    # The derivative of the second element is computed as a difference of large numbers.
    found = measured(lambda x: np.array([1, 1e6]) * x - np.array([0, 1e6 - 1]) * x, X[0, :2])
    assert found.rounding(0) < 10
    assert 1e5 < found.rounding(1) < 1e7
    assert found.plus(found).rounding(1) == 2 * found.rounding(1)
