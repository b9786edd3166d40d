"""The whole GPT where the mathematics is exact, and with extreme numbers."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tinygpt_np.gradcheck.suite import CONFIG, batch, generic_gpt

V, C, T, B = CONFIG.vocab_size, CONFIG.n_embd, 5, 3
# A gradient passes through 10 operations per block and 3 others; the longest sum, of 4C products,
# rounds 4C times. This bounds the relative difference between two orders of summation.
ROUNDING = (10 * CONFIG.n_layer + 3) * 4 * C * float(np.finfo(np.float64).eps)
both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def test_a_sequence_may_be_cut_after_its_last_target() -> None:
    model, (tokens, _) = generic_gpt(), batch(V, 1, T, 0)
    # All targets but one are ignored.
    targets = np.array([[-1, -1, 4, -1, -1]])
    loss, grads = model.loss_and_grads(tokens, targets)
    loss_of_cut, grads_of_cut = model.loss_and_grads(tokens[:, :3], targets[:, :3])
    assert loss == pytest.approx(loss_of_cut, rel=ROUNDING)
    for name, grad in grads_of_cut.items():
        assert np.linalg.norm(grads[name] - grad) <= ROUNDING * np.linalg.norm(grad), name


@both_dtypes
def test_a_vocabulary_of_1_has_loss_and_gradients_of_zero(dtype: str) -> None:
    model = generic_gpt(replace(CONFIG, vocab_size=1), dtype=dtype)
    tokens = np.zeros((B, T), dtype=np.int64)
    loss, grads = model.loss_and_grads(tokens, tokens)
    assert loss == 0
    for name, grad in grads.items():
        assert (grad == 0).all(), name


@both_dtypes
def test_a_single_token_gives_queries_and_keys_no_gradient(dtype: str) -> None:
    model, (tokens, targets) = generic_gpt(dtype=dtype), batch(V, B, 1, 0)
    _, grads = model.loss_and_grads(tokens, targets)
    for layer in range(CONFIG.n_layer):
        query, key, value = np.split(grads[f"h.{layer}.attn.c_attn.weight"], 3, axis=-1)
        assert (query == 0).all()
        assert (key == 0).all()
        assert (value != 0).all()


@pytest.mark.parametrize(("dtype", "size"), [("float32", 1e-40), ("float64", 1e-310)])
def test_the_loss_of_denormal_weights_is_that_of_guessing(dtype: str, size: float) -> None:
    model, (tokens, targets) = generic_gpt(dtype=dtype), batch(V, B, T, 0)
    model.params = {name: (size * param).astype(dtype) for name, param in model.params.items()}
    loss, grads = model.loss_and_grads(tokens, targets)
    assert loss == pytest.approx(np.log(V), rel=4 * float(np.finfo(dtype).eps))
    for name, grad in grads.items():
        assert np.isfinite(grad).all(), name


@both_dtypes
def test_huge_weights_stay_finite(dtype: Any) -> None:
    model, (tokens, targets) = generic_gpt(dtype=dtype), batch(V, B, T, 0)
    model.params = {name: (1e4 * param).astype(dtype) for name, param in model.params.items()}
    assert np.abs(model.logits(tokens)).max() > 1e8
    loss, grads = model.loss_and_grads(tokens, targets)
    assert np.isfinite(loss)
    for name, grad in grads.items():
        assert np.isfinite(grad).all(), name
