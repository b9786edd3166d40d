"""What is measured: which oracle, which places, how far rounding may go."""

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
buffer = np.empty(X.shape)


def subject(loss: Loss, x: np.ndarray = X, eps: float = EPS) -> Subject:
    return Subject(lambda tensors: loss(tensors["x"]), {"x": x}, x.size, eps)


def measured(
    loss: Loss, x: np.ndarray = X, method: Method = "complex", eps: float = EPS
) -> Measurement:
    rng = np.random.default_rng(0)
    return measure(subject(loss, x, eps), "x", Probes(x.shape), method, rng)


def smooth(x: np.ndarray) -> Any:
    return np.sum(WEIGHTS * np.sin(x))


def gradient_of_smooth(x: np.ndarray) -> np.ndarray:
    return (WEIGHTS * np.cos(x)).reshape(-1)


def fills_a_buffer(x: np.ndarray) -> Any:
    buffer[...] = x
    return np.sum(WEIGHTS * np.sin(buffer))


def raises_on_complex(x: np.ndarray) -> Any:
    if np.iscomplexobj(x):
        raise RuntimeError("compiled for floats")
    return smooth(x)


# Each is Σ w sin x on floats.
UNSAFE: dict[str, Loss] = {
    "the absolute value": lambda x: np.sum(WEIGHTS * np.sin(x)) + 0 * np.abs(x[0, 0]),
    "the real part": lambda x: np.sum(WEIGHTS * np.sin(np.real(x))),
    "a conjugate": lambda x: np.sum(WEIGHTS * np.sin(np.conj(x))),
    "a conjugate of one element": lambda x: smooth(
        np.where([[True, True, False], [True, True, True]], x, np.conj(x))
    ),
    "a cast to floats": lambda x: np.sum(WEIGHTS * np.sin(x.astype(np.float64))),
    "float()": lambda x: sum(
        w * math.sin(float(v)) for w, v in zip(WEIGHTS.flat, x.flat, strict=True)
    ),
    "a buffer of floats": fills_a_buffer,
    "out=": lambda x: np.sum(WEIGHTS * np.sin(x, out=buffer)),
    "a kernel that raises": raises_on_complex,
}


def test_a_smooth_loss_is_measured_by_the_complex_step_to_rounding() -> None:
    found = measured(smooth)
    assert found.method == "complex"
    np.testing.assert_allclose(found.values, gradient_of_smooth(X), rtol=4 * EPS)
    assert (found.errors == 0).all()
    assert found.usable.all()


@pytest.mark.parametrize("name", [name for name in UNSAFE if name != "the absolute value"])
def test_a_loss_that_takes_no_complex_numbers_is_measured_by_richardson(name: str) -> None:
    found = measured(UNSAFE[name])
    assert found.method == "richardson"
    np.testing.assert_allclose(found.values, gradient_of_smooth(X), rtol=1e-10)
    assert found.usable.all()


def test_the_absolute_value_is_measured_by_richardson() -> None:
    found = measured(lambda x: np.sum(WEIGHTS * np.abs(x) ** 3))
    assert found.method == "richardson"
    np.testing.assert_allclose(found.values, (3 * WEIGHTS * np.abs(X) * X).reshape(-1), rtol=1e-9)


@pytest.mark.parametrize("method", ["central", "richardson"])
def test_the_method_that_was_asked_for_is_the_one_that_is_used(method: Method) -> None:
    assert measured(smooth, method=method).method == method


def test_a_constant_beside_the_real_part_is_no_reason_to_doubt_the_complex_step() -> None:
    # As softmax does with its largest logit.
    def loss(x: np.ndarray) -> Any:
        e = np.exp(x - np.real(x).max())
        return np.sum(WEIGHTS * e / e.sum())

    assert measured(loss).method == "complex"


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_that_does_not_depend_on_a_tensor_has_no_gradient_there(method: Method) -> None:
    found = measured(lambda x: np.float64(3), method=method)
    assert found.method == method
    assert (found.values == 0).all()
    assert found.usable.all()


def test_only_one_tensor_is_moved() -> None:
    seen: list[np.ndarray] = []

    def loss(tensors: dict[str, np.ndarray]) -> Any:
        seen.append(tensors["other"])
        return np.sum(tensors["x"] * tensors["other"])

    both = Subject(loss, {"x": X, "other": WEIGHTS}, X.size)
    curve = both.curve("x", np.ones(X.shape))
    assert curve(0.5) - curve(0.0) == pytest.approx(0.5 * WEIGHTS.sum())
    assert all(other is WEIGHTS for other in seen)


def test_a_shaken_value_moves_by_its_last_bit() -> None:
    shaken = subject(smooth).perturbed(np.random.default_rng(0)).values["x"]
    moves = np.abs(shaken - X) / np.spacing(np.abs(X))
    assert moves.min() >= 1
    assert moves.max() <= 2


# Where there is no derivative


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


KINKED: dict[str, tuple[Loss, np.ndarray, list[int]]] = {
    "relu at 0": (lambda x: np.sum(WEIGHTS * relu(x)), X * (X != 0.4), [2]),
    "relu at -0": (lambda x: np.sum(WEIGHTS * relu(x)), np.where(X == 0.4, -0.0, X), [2]),
    "absolute value at 0": (lambda x: np.sum(WEIGHTS * np.abs(x)), X * (X > 0.3), [1, 4, 5]),
    "hinge": (lambda x: np.sum(WEIGHTS * np.maximum(0, 1.1 - x)), X, [3]),
    "a tie for the largest": (lambda x: np.max(x) * 3, np.where(X == 0.7, 1.1, X), [0, 3]),
    "leaky": (lambda x: np.sum(WEIGHTS * np.where(x > 0, x, 0.9 * x)), X * (X != 0.7), [0]),
    "clip": (lambda x: np.sum(np.clip(x, -1.3, 5)), X, [1]),
}


@pytest.mark.parametrize("name", KINKED)
def test_a_kink_is_found_where_it_is_and_nowhere_else(name: str) -> None:
    loss, x, places = KINKED[name]
    found = measured(loss, x)
    assert np.flatnonzero(found.kinks).tolist() == places
    assert found.usable.sum() == x.size - len(places)


@pytest.mark.parametrize("name", KINKED)
def test_the_other_places_are_measured_rightly(name: str) -> None:
    loss, x, _ = KINKED[name]
    found = measured(loss, x)
    for number in np.flatnonzero(found.usable):
        step = 1e-6 * Probes(x.shape)[int(number)]
        slope = (loss(x + step) - loss(x - step)) / 2e-6
        assert found.values[number] == pytest.approx(slope, abs=1e-8)


SMOOTH: dict[str, Callable[[Any], Any]] = {
    "a steep curve": lambda t: 1e4 * t * t,
    "a steep and crooked curve": lambda t: 1e6 * t + 1e5 * t * t,
    "a straight line": lambda t: 5 + 3 * t,
    "a constant": lambda t: 7.0,
    "rounding of a large loss": lambda t: 1e12 + np.sin(1 + t),
    "noise": lambda t: 1 + 1e-12 * math.sin(1e12 * float(t)),
    "a step": lambda t: float(t >= 0),
    "a power above 1 of a distance": lambda t: abs(t) ** 1.2,
}


@pytest.mark.parametrize("name", SMOOTH)
def test_what_is_no_kink_is_not_taken_for_one(name: str) -> None:
    assert not has_kink(SMOOTH[name])


@pytest.mark.parametrize("jump", [1.0, 1e-3, -1.0])
def test_a_corner_is_a_kink_however_flat(jump: float) -> None:
    assert has_kink(lambda t: 1 + 2 * t + 30 * t * t + jump * max(t, 0))


def test_a_corner_is_a_kink_beside_curvature_that_moves_the_slope_by_a_tenth_of_it() -> None:
    assert has_kink(lambda t: max(t, 0) + 6e4 * t * t)


@pytest.mark.parametrize(("jump", "is_kink"), [(2e-6, True), (5e-7, False)])
def test_a_corner_is_a_kink_from_some_fifty_roundings_of_the_loss_on(
    jump: float, is_kink: bool
) -> None:
    assert has_kink(lambda t: 1 + jump * max(t, 0)) == is_kink


# What cannot be told


def test_a_loss_that_rounds_to_float32_cannot_be_told() -> None:
    for seed in range(20):
        x = np.random.default_rng(seed).standard_normal((2, 3))
        found = measured(lambda x: smooth(x.astype(np.float32)), x)
        assert found.method == "richardson"
        # By chance, an element of noise may look smooth.
        assert found.unresolved.mean() > 0.5


def test_a_loss_that_rounds_to_float32_can_be_told_for_a_gradient_in_float32() -> None:
    found = measured(lambda x: smooth(x.astype(np.float32)), eps=float(np.finfo("float32").eps))
    assert found.usable.all()
    np.testing.assert_allclose(found.values, gradient_of_smooth(X), rtol=1e-4)


def test_one_derivative_that_is_not_finite_leaves_the_others_alone() -> None:
    found = measured(lambda x: np.sum(np.sqrt(x)), np.array([4.0, 0.0, 9.0]))
    assert found.unresolved.tolist() == [False, True, False]
    np.testing.assert_allclose(found.values[[0, 2]], [1 / 4, 1 / 6])


def test_a_difference_tells_a_gradient_of_zero_as_far_as_it_can() -> None:
    found = measured(lambda x: 1 + 0 * np.sum(x) + np.sum(x - x), method="central")
    assert found.usable.all()


# What rounding does


def test_rounding_adds_up_as_the_root_of_the_number_of_terms() -> None:
    assert 99 < roundings(10**8) / roundings(10**4) < 130
    assert roundings(1) > 1


def test_the_floor_is_of_the_size_of_rounding() -> None:
    floor = measured(smooth).floor
    assert EPS < floor < 1000 * EPS


def test_the_floor_grows_where_the_gradient_feels_every_last_bit() -> None:
    # x ↦ sin(1e6 x): moving x by its last bit moves the derivative by 1e12 last bits.
    assert measured(lambda x: np.sum(np.sin(1e6 * x))).floor > 1e-5


def test_the_floor_is_scaled_to_the_dtype() -> None:
    single = float(np.finfo("float32").eps)
    ratio = measured(smooth, eps=single).floor / measured(smooth).floor
    assert ratio == pytest.approx(single / EPS, rel=0.01)


def test_the_floor_knows_of_terms_that_cancel() -> None:
    # Two numbers less their mean, over their spread, are 1 and -1: there is nothing to be seen of
    # x, but whoever computes the gradient adds up terms of order one.
    def loss(x: np.ndarray) -> Any:
        centered = x - x.mean()
        return np.sum(np.array([3.0, -2.0]) * centered / np.sqrt((centered**2).mean() + 1e-5))

    assert measured(loss, np.array([0.3, 1.7])).floor > EPS


# Where one looks


def test_coordinates_are_looked_at_one_by_one_in_the_order_of_the_elements() -> None:
    probes = Probes((2, 3))
    assert len(probes) == 6
    assert probes[4].tolist() == [[0, 0, 0], [0, 1, 0]]
    assert probes.index(4) == (1, 1)
    assert probes.along(X).tolist() == X.reshape(-1).tolist()


def test_a_direction_sums_over_the_elements() -> None:
    directions = np.random.default_rng(0).standard_normal((4, 2, 3))
    probes = Probes((2, 3), directions)
    assert len(probes) == 4
    assert probes.index(3) == (3,)
    np.testing.assert_allclose(probes.along(X), [np.sum(X * d) for d in directions])
    weights = np.array([1.0, 0, -2, 0])
    np.testing.assert_allclose(probes.combined(weights), directions[0] - 2 * directions[2])


def test_a_scalar_has_one_coordinate() -> None:
    found = measured(lambda x: x * x * x, np.array(2.0))
    assert found.values.tolist() == [12]
    assert found.probes.index(0) == ()


def test_how_often_a_rounding_adds_up_is_the_papers_formula() -> None:
    # 950 terms, each the result of 50 operations; one false alarm in 1e9.
    assert roundings(950) == pytest.approx(math.sqrt(2 * math.log(2 * 1000 / 1e-9) * 1000))
