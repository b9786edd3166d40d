"""AdamW compared with its formula, Muon with PyTorch; clipping; the schedule."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.errors import relative_error
from helpers.optional import needs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tinygpt_np import TrainConfig
from tinygpt_np.model import optimizer as optim
from tinygpt_np.model.optimizer import (
    AdamW,
    Muon,
    clip,
    global_norm,
    learning_rate_at,
    overflowing_square,
)

BETA1, BETA2, DECAY, MOMENTUM = 0.8, 0.95, 0.3, 0.9
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


# Muon

# Wide, tall and square matrices, and those of one row and one column; one is two by meaning.
MATRICES = {"h.0.a": (5, 9), "h.0.b": (9, 5), "h.1.a": (4, 14), "h.1.b": (1, 6), "h.2.a": (6, 1)}
PARTS = {name: [slice(0, shape[1])] for name, shape in MATRICES.items()}
PARTS["h.1.a"] = [slice(0, 4), slice(4, 14)]


def generic_tensors(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape) for name, shape in (MATRICES | SHAPES).items()}


def torch_muon(param: Any, grads: list[Any]) -> Any:
    """Return a matrix (out, in) in PyTorch after steps of Muon as Jordan et al. publish it."""
    buffer = 0 * param
    for grad, rate in zip(grads, RATES, strict=True):
        buffer = buffer.lerp(grad, 1 - MOMENTUM)
        x = grad.lerp(buffer, MOMENTUM)
        transposed = x.size(0) > x.size(1)
        x = x.mT if transposed else x
        x = x / (x.norm() + 1e-7)
        for _ in range(5):
            gram = x @ x.mT
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        x = x.mT if transposed else x
        scale = max(1, x.size(0) / x.size(1)) ** 0.5
        param = param * (1 - 3 * rate * DECAY) - 3 * rate * scale * x
    return param


def muon_after(steps: int) -> tuple[dict[str, np.ndarray], Muon]:
    params = generic_tensors(0)
    optimizer = Muon(params, PARTS, MOMENTUM, 3.0, BETA1, BETA2, DECAY)
    for step, rate in zip(range(1, steps + 1), RATES, strict=False):
        optimizer.update(params, generic_tensors(step), rate)
    return params, optimizer


def test_muon_is_that_of_pytorch_in_float64() -> None:
    torch = needs("torch")
    params, _ = muon_after(len(RATES))
    for name, parts in PARTS.items():
        for part in parts:
            # In PyTorch, a weight is (out, in).
            first, *grads = (
                torch.tensor(generic_tensors(step)[name][:, part].T)
                for step in range(len(RATES) + 1)
            )
            expected = torch_muon(first, grads).T.numpy()
            assert relative_error(params[name][:, part], expected) <= 1e-13, (name, part)


def test_the_other_parameters_of_muon_are_updated_by_adamw() -> None:
    params, optimizer = muon_after(len(RATES))
    others = {name: generic_tensors(0)[name] for name in SHAPES}
    adamw = AdamW(others, BETA1, BETA2, DECAY)
    for step, rate in enumerate(RATES, start=1):
        adamw.update(others, generic_tensors(step), rate)
    for name, expected in others.items():
        np.testing.assert_array_equal(params[name], expected)
    assert list(optimizer.second) == list(SHAPES)
    assert {name: tensor.shape for name, tensor in optimizer.first.items()} == MATRICES | SHAPES


def test_the_configured_optimizer_is_made_with_its_settings() -> None:
    params = {"wte.weight": np.zeros((3, 8)), "h.0.attn.c_attn.weight": np.zeros((8, 24))}
    config = TrainConfig(n_embd=8, beta1=0.7, beta2=0.8, weight_decay=0.3, learning_rate=2e-3)
    assert type(optim.make(config, params)) is AdamW
    config = replace(config, optimizer="muon", muon_learning_rate=0.01, muon_momentum=0.6)
    found = optim.make(config, params)
    assert isinstance(found, Muon)
    assert (found.beta1, found.beta2, found.weight_decay) == (0.7, 0.8, 0.3)
    assert (found.momentum, found.relative_rate) == (0.6, pytest.approx(5))
    assert list(found.parts) == ["h.0.attn.c_attn.weight"]


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
    if 10 <= step <= 110:  # A line from the same start to the same end.
        linear = pytest.approx(0.8 - 0.7 * (step - 10) / 100)
        assert learning_rate_at(step, replace(config, lr_decay="linear")) == linear
    else:
        assert learning_rate_at(step, replace(config, lr_decay="linear")) == pytest.approx(expected)
    # Also if the decay ends with the warm-up.
    assert learning_rate_at(110, replace(config, warmup_iters=110)) == pytest.approx(0.1)
