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


def test_adamw_is_the_papers_formula_for_each_number() -> None:
    params, grads = tensors(0), [tensors(step) for step in range(1, len(RATES) + 1)]
    optimizer = AdamW(params, BETA1, BETA2, DECAY)
    for grad, rate in zip(grads, RATES, strict=True):
        optimizer.update(params, grad, rate)
    for name, found in params.items():
        decay = DECAY if name == "wte.weight" else 0.0
        for place in np.ndindex(found.shape):
            gradients = [float(grad[name][place]) for grad in grads]
            expected = adamw_of_one_number(float(tensors(0)[name][place]), gradients, decay)
            assert found[place] == pytest.approx(expected, rel=1e-13), (name, place)


def test_parameters_and_means_change_in_place_in_their_dtype_and_gradients_do_not() -> None:
    params, grads = tensors(0, "float32"), tensors(1, "float32")
    optimizer = AdamW(params, BETA1, BETA2, DECAY)
    before = dict(params)
    optimizer.update(params, grads, 0.01)
    for name, grad in tensors(1, "float32").items():
        np.testing.assert_array_equal(grads[name], grad)
        assert params[name] is before[name]
        for kept in (params, optimizer.first, optimizer.second):
            assert (kept[name].shape, kept[name].dtype) == (SHAPES[name], np.float32)


# Clipping

finite = st.floats(-1e6, 1e6, width=32).map(lambda x: x if abs(x) > 1e-6 else 0.0)


def test_the_global_norm_is_that_of_one_vector_in_float64() -> None:
    vector = np.concatenate([grad.ravel() for grad in tensors(1).values()])
    assert global_norm(tensors(1)) == pytest.approx(float(np.linalg.norm(vector)), rel=1e-14)
    # In float32, 1e20 squared overflows.
    assert global_norm({"a": np.full(4, 1e20, np.float32)}) == pytest.approx(2e20, rel=1e-7)


@steady
@given(arrays(np.float32, (2, 3), elements=finite), st.just(0.0) | st.floats(1e-3, 1e3))
def test_gradients_are_scaled_to_a_norm_that_is_too_large(grad: np.ndarray, largest: float) -> None:
    grads = {"a": grad[:1], "b": grad[1]}
    norm = global_norm(grads)
    for name, clipped in clip(grads, norm, largest).items():
        assert clipped.dtype == np.float32
        scale = np.float32(largest / norm) if 0 < largest < norm else np.float32(1)
        np.testing.assert_array_equal(clipped, grads[name] * scale)


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
    # Its norm overflows when it is squared, but no element does.
    grads = {"w": np.full((2, 3), 1e19, np.float32)}
    assert overflowing_square(grads, global_norm(grads), 0.0) == ""


# The learning rate


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        *((step, 0.8 * (step + 1) / 11) for step in (0, 4, 9)),  # The warm-up never starts at 0.
        *((10 + step, 0.1 + 0.7 * (1 + math.cos(math.pi * step / 100)) / 2)
          for step in (0, 1, 25, 50, 99)),
        *((step, 0.1) for step in (110, 111, 500)),
    ],
)  # fmt: skip
def test_the_schedule_is_nanogpts(step: int, expected: float) -> None:
    config = TrainConfig(learning_rate=0.8, min_lr=0.1, warmup_iters=10, lr_decay_iters=110)
    assert learning_rate_at(step, config) == pytest.approx(expected, rel=1e-13)
    # Also if the decay ends with the warm-up.
    assert learning_rate_at(110, replace(config, warmup_iters=110)) == pytest.approx(0.1)
