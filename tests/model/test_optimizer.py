"""AdamW compared with its formula, one number at a time; clipping; the schedule."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tinygpt_np import TrainConfig
from tinygpt_np.model.optimizer import (
    AdamW,
    clip,
    global_norm,
    learning_rate_at,
    overflowing_square,
)

BETA1, BETA2, DECAY = 0.8, 0.95, 0.3
RATES = [0.05, 0.11, 0.02, 0.07]
SHAPES = {"wte.weight": (3, 2), "ln_f.weight": (4,), "ln_f.bias": (2,)}
steady = settings(deadline=None, derandomize=True)


def tensors(seed: int, dtype: str = "float64") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}


def adamw_of_one_number(theta: float, gradients: list[float], decay: float) -> float:
    """Return theta after algorithm 2 of Loshchilov and Hutter."""
    m = v = 0.0
    for t, (g, rate) in enumerate(zip(gradients, RATES, strict=True), start=1):
        m = BETA1 * m + (1 - BETA1) * g
        v = BETA2 * v + (1 - BETA2) * g * g
        m_hat, v_hat = m / (1 - BETA1**t), v / (1 - BETA2**t)
        theta = theta - rate * (m_hat / (math.sqrt(v_hat) + 1e-8) + decay * theta)
    return theta


def trained(dtype: str = "float64") -> tuple[dict[str, np.ndarray], AdamW]:
    """Return parameters after a step for each of RATES, and their optimizer."""
    params = tensors(0, dtype)
    optimizer = AdamW(params, BETA1, BETA2, DECAY)
    for step, rate in enumerate(RATES, start=1):
        optimizer.update(params, tensors(step, dtype), rate)
    return params, optimizer


@pytest.mark.parametrize("name", SHAPES)
def test_adamw_is_the_papers_formula_for_each_number(name: str) -> None:
    found = trained()[0][name]
    grads = [tensors(step)[name] for step in range(1, len(RATES) + 1)]
    decay = DECAY if name == "wte.weight" else 0.0
    for place in np.ndindex(found.shape):
        gradients = [float(grad[place]) for grad in grads]
        expected = adamw_of_one_number(float(tensors(0)[name][place]), gradients, decay)
        assert found[place] == pytest.approx(expected, rel=1e-13), place


def test_parameters_change_in_place_and_gradients_do_not() -> None:
    params, grads = tensors(0), tensors(1)
    before = dict(params)
    AdamW(params, BETA1, BETA2, DECAY).update(params, grads, 0.01)
    assert all(params[name] is before[name] for name in SHAPES)
    for name, grad in tensors(1).items():
        np.testing.assert_array_equal(grads[name], grad)


def test_the_running_means_have_the_names_shapes_and_dtype_of_the_parameters() -> None:
    params, optimizer = trained("float32")
    for kept in (params, optimizer.first, optimizer.second):
        assert {name: tensor.shape for name, tensor in kept.items()} == SHAPES
        assert {tensor.dtype.name for tensor in kept.values()} == {"float32"}


# Clipping

finite = st.floats(-1e6, 1e6).map(lambda x: x if abs(x) > 1e-6 else 0.0)


def test_the_global_norm_is_that_of_one_vector_in_float64() -> None:
    vector = np.concatenate([grad.ravel() for grad in tensors(1).values()])
    assert global_norm(tensors(1)) == pytest.approx(float(np.linalg.norm(vector)), rel=1e-14)
    # In float32, 1e20 squared overflows.
    assert global_norm({"a": np.full(4, 1e20, np.float32)}) == pytest.approx(2e20, rel=1e-7)


@steady
@given(arrays(np.float64, (2, 3), elements=finite), st.floats(1e-3, 1e3))
def test_a_clipped_norm_never_exceeds_the_largest(grad: np.ndarray, largest: float) -> None:
    grads = {"a": grad[:1], "b": grad[1]}
    clipped = clip(grads, global_norm(grads), largest)
    # Each norm of 6 squares, the quotient and the product round: 11 roundings at most.
    assert global_norm(clipped) <= largest * (1 + 11 * np.finfo(np.float64).eps)


def test_clipping_scales_every_gradient_in_its_dtype() -> None:
    clipped = clip(tensors(1), global_norm(tensors(1)), 0.25)
    assert global_norm(clipped) == pytest.approx(0.25, rel=1e-14)
    for name, grad in clip(tensors(1, "float32"), 2.0, 0.5).items():
        assert grad.dtype == np.float32
        np.testing.assert_array_equal(grad, tensors(1, "float32")[name] / 4)


@pytest.mark.parametrize("largest", [0.0, 1e9])
def test_a_norm_below_the_largest_or_no_largest_changes_nothing(largest: float) -> None:
    clipped = clip(tensors(1), global_norm(tensors(1)), largest)
    for name, grad in tensors(1).items():
        np.testing.assert_array_equal(clipped[name], grad)


@pytest.mark.parametrize("largest", [0.0, 1.0, 1e30])
def test_a_gradient_whose_square_overflows_after_clipping_is_named(largest: float) -> None:
    grads = tensors(1, "float32")
    limit = math.sqrt(np.finfo(np.float32).max)
    for factor, overflows in ((0.999, False), (1.001, True)):
        grads["ln_f.weight"][2] = limit * factor
        with np.errstate(over="ignore"):
            assert np.isinf(np.square(grads["ln_f.weight"])).any() == overflows
        found = overflowing_square(grads, global_norm(grads), largest)
        clipped = 0 < largest < limit
        assert found == ("ln_f.weight" if overflows and not clipped else "")


def test_a_large_norm_of_gradients_with_finite_squares_names_nothing() -> None:
    grads = {"w": np.full((2, 3), 1e19, np.float32)}
    assert global_norm(grads) > math.sqrt(np.finfo(np.float32).max)
    assert overflowing_square(grads, global_norm(grads), 0.0) == ""


# The learning rate


def nanogpts_learning_rate(step: int, config: TrainConfig) -> float:
    """Return get_lr of nanoGPT's train.py."""
    if step < config.warmup_iters:
        return config.learning_rate * (step + 1) / (config.warmup_iters + 1)
    if step > config.lr_decay_iters:
        return config.min_lr
    ratio = (step - config.warmup_iters) / (config.lr_decay_iters - config.warmup_iters)
    coefficient = 0.5 * (1.0 + math.cos(math.pi * ratio))
    return config.min_lr + coefficient * (config.learning_rate - config.min_lr)


@st.composite
def schedules(draw: st.DrawFn) -> TrainConfig:
    largest = draw(st.floats(1e-6, 1))
    warmup = draw(st.integers(0, 200))
    return TrainConfig(
        learning_rate=largest,
        min_lr=draw(st.floats(0, 1)) * largest,
        warmup_iters=warmup,
        lr_decay_iters=warmup + draw(st.integers(1, 500)),
    )


@steady
@given(schedules(), st.integers(0, 800))
def test_the_schedule_is_nanogpts(config: TrainConfig, step: int) -> None:
    found = learning_rate_at(step, config)
    assert found == pytest.approx(nanogpts_learning_rate(step, config), rel=1e-13)
    last = config.lr_decay_iters
    assert learning_rate_at(last, config) == pytest.approx(config.min_lr, rel=1e-13)


def test_a_decay_that_ends_with_the_warm_up_leaves_the_smallest_rate() -> None:
    config = replace(TrainConfig(), warmup_iters=7, lr_decay_iters=7)
    assert learning_rate_at(7, config) == config.min_lr
