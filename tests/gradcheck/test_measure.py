"""Measuring a gradient: which oracle is used, which elements are skipped, the size of rounding."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinygpt_np.gradcheck.measure import (
    EPS,
    METHODS,
    Measurement,
    Method,
    Probes,
    Subject,
    has_kink,
    measure,
    roundings,
)

Loss = Callable[[np.ndarray], Any]
X: np.ndarray = np.array([[0.7, -1.3, 0.4], [1.1, 0.2, -0.6]])
WEIGHTS: np.ndarray = np.array([[0.3, -1.2, 0.8], [1.7, -0.4, 0.9]])


def measured(
    loss: Loss, x: np.ndarray = X, method: Method = "complex", eps: float = EPS
) -> Measurement:
    subject = Subject(lambda tensors: loss(tensors["x"]), {"x": x}, x.size, eps)
    return measure(subject, "x", Probes(x.shape), method, np.random.default_rng(0))


def smooth(x: np.ndarray) -> Any:
    return np.sum(WEIGHTS * np.sin(x))


GRADIENT = (WEIGHTS * np.cos(X)).reshape(-1)


def raises_on_complex(x: np.ndarray) -> Any:
    if np.iscomplexobj(x):
        raise RuntimeError("compiled for floats")
    return smooth(x)


# Each is Σ w sin x on real numbers.
UNSAFE: dict[str, Loss] = {
    "a conjugate of one element": lambda x: smooth(np.where(X == 0.4, np.conj(x), x)),
    "the real part": lambda x: smooth(np.real(x)),
    "a cast to floats": lambda x: smooth(x.astype(np.float64)),
    "a kernel that raises": raises_on_complex,
}


def test_a_smooth_loss_is_measured_by_the_complex_step_and_others_by_richardson() -> None:
    found = measured(smooth)
    assert found.method == "complex"
    np.testing.assert_allclose(found.values, GRADIENT, rtol=4 * EPS)
    assert (found.errors == 0).all()
    for name, loss in UNSAFE.items():
        found = measured(loss)
        assert found.method == "richardson", name
        np.testing.assert_allclose(found.values, GRADIENT, rtol=1e-10)
        assert found.usable.all()


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_that_does_not_depend_on_a_tensor_has_gradient_zero(method: Method) -> None:
    found = measured(lambda x: np.float64(3), method=method)
    assert found.method == method
    assert (found.values == 0).all()
    assert found.usable.all()


KINKED: list[tuple[Loss, np.ndarray, list[int]]] = [
    (lambda x: np.sum(WEIGHTS * np.maximum(x, 0)), X * (X != 0.4), [2]),
    (lambda x: np.sum(WEIGHTS * np.abs(x)), X * (X > 0.3), [1, 4, 5]),
    # Two elements are the largest.
    (lambda x: np.max(x) * 3, np.where(X == 0.7, 1.1, X), [0, 3]),
]


def test_kinks_are_found_and_the_other_elements_are_measured() -> None:
    for loss, x, places in KINKED:
        found = measured(loss, x)
        assert np.flatnonzero(found.kinks).tolist() == places
        assert found.usable.sum() == x.size - len(places)
        for number in np.flatnonzero(found.usable):
            step = 1e-6 * Probes(x.shape)[int(number)]
            slope = (loss(x + step) - loss(x - step)) / 2e-6
            assert found.values[number] == pytest.approx(slope, abs=1e-8)


KINKS: list[Callable[[float], float]] = [
    lambda t: 1 + 2 * t + 30 * t * t - 1e-3 * max(t, 0),
    # The curvature changes the slope by a tenth of the jump.
    lambda t: max(t, 0) + 6e4 * t * t,
    # The limit is about fifty rounding errors of the loss.
    lambda t: 1 + 2e-6 * max(t, 0),
]
NO_KINKS: list[Callable[[float], float]] = [
    lambda t: 1 + 5e-7 * max(t, 0),
    # A steep and crooked curve, rounding of a large loss, noise, a step, a power of |t|.
    lambda t: 1e6 * t + 1e5 * t * t,
    lambda t: 1e12 + math.sin(1 + t),
    lambda t: 1 + 1e-12 * math.sin(1e12 * t),
    lambda t: float(t >= 0),
    lambda t: abs(t) ** 1.2,
]


def test_a_jump_of_the_slope_is_a_kink() -> None:
    assert [has_kink(curve) for curve in KINKS] == [True] * 3
    assert [has_kink(curve) for curve in NO_KINKS] == [False] * 6


def test_a_loss_that_rounds_to_float32_is_resolved_for_float32_gradients_only() -> None:
    def rough(x: np.ndarray) -> Any:
        return smooth(x.astype(np.float32))

    for seed in range(8):
        found = measured(rough, np.random.default_rng(seed).standard_normal((2, 3)))
        assert found.method == "richardson"
        # By chance, a few elements may look smooth.
        assert found.unresolved.mean() > 0.5
    found = measured(rough, eps=float(np.finfo("float32").eps))
    assert found.usable.all()
    np.testing.assert_allclose(found.values, GRADIENT, rtol=1e-4)


def test_a_derivative_is_resolved_if_it_is_finite_and_precise_relative_to_the_loss() -> None:
    found = measured(lambda x: np.sum(np.sqrt(x)), np.array([4.0, 0.0, 9.0]))
    assert found.unresolved.tolist() == [False, True, False]
    np.testing.assert_allclose(found.values[[0, 2]], [1 / 4, 1 / 6])
    found = measured(lambda x: 1 + 0 * np.sum(x) + np.sum(x - x), method="central")
    assert found.usable.all()


def test_rounding_adds_up_as_in_the_paper() -> None:
    # 950 terms, each the result of 50 operations; a false alarm has probability 1e-9.
    assert roundings(950) == pytest.approx(math.sqrt(2 * math.log(2 * 1000 / 1e-9) * 1000))


def test_the_floor_is_the_size_of_rounding_in_the_dtype_and_where_the_loss_is_sensitive() -> None:
    floor, single = measured(smooth).floor, float(np.finfo("float32").eps)
    assert EPS < floor < 1000 * EPS
    assert measured(smooth, eps=single).floor / floor == pytest.approx(single / EPS, rel=0.01)
    # x ↦ sin(1e6 x): moving x by one ulp moves the derivative by 1e12 ulps.
    assert measured(lambda x: np.sum(np.sin(1e6 * x))).floor > 1e-5


def test_the_floor_includes_terms_that_cancel() -> None:
    # Two numbers minus their mean, divided by their deviation, are 1 and -1 for any x, so the
    # gradient is 0, but it is computed as a sum of terms of order one.
    def loss(x: np.ndarray) -> Any:
        centered = x - x.mean()
        return np.sum(np.array([3.0, -2.0]) * centered / np.sqrt((centered**2).mean() + 1e-5))

    assert measured(loss, np.array([0.3, 1.7])).floor > EPS
