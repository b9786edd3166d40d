"""Properties of the whole GPT with any weights: symmetries, sums, and extreme numbers.

Results are equal where the mathematics is exact; two orders of summation may differ by ROUNDING.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import tinygpt_np as tg
from tinygpt_np.gradcheck.suite import CONFIG, batch, generic_gpt
from tinygpt_np.storage.parameters import Tensors

V, C, T, B = CONFIG.vocab_size, CONFIG.n_embd, 5, 3
# A gradient passes through 10 operations per block and 3 others; the longest sum, of 4C products,
# rounds 4C times. This bounds the relative difference between two orders of summation.
ROUNDING = (10 * CONFIG.n_layer + 3) * 4 * C * float(np.finfo(np.float64).eps)
both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def assert_near(found: Tensors, expected: Tensors, *parts: Tensors) -> None:
    """Assert that tensors agree to rounding relative to their norm, or to that of their parts."""
    for name, grad in expected.items():
        size = sum(float(np.linalg.norm(part[name])) for part in parts or (expected,))
        error = float(np.linalg.norm(found[name] - grad))
        assert error <= ROUNDING * size, f"{name} is off by {error:.1e} of {size:.1e}"


def with_scores(scale: float) -> tg.GPT:
    """Return a model whose attention scores have the size of `scale`."""
    model = generic_gpt()
    for layer in range(CONFIG.n_layer):
        for kind in ("weight", "bias"):
            model.params[f"h.{layer}.attn.c_attn.{kind}"][..., : 2 * C] *= scale**0.5
    return model


# Causality


@pytest.mark.parametrize("scale", [1, 1e4])
def test_the_future_never_changes_the_past(scale: float) -> None:
    model, (tokens, _) = with_scores(scale), batch(V, B, T, 0)
    changed = tokens.copy()
    changed[:, 3:] = (changed[:, 3:] + 1) % V
    before, after = model.logits(tokens), model.logits(changed)
    np.testing.assert_array_equal(after[:, :3], before[:, :3])
    assert (after[:, 3:] != before[:, 3:]).any()


@pytest.mark.parametrize("scale", [1, 1e4])
def test_a_loss_on_the_past_gives_the_future_exactly_no_gradient(scale: float) -> None:
    model, (tokens, targets) = with_scores(scale), batch(V, B, T, 0)
    targets[:, 3:] = -1
    _, grads = model.loss_and_grads(tokens, targets)
    assert (grads["wpe.weight"][3:] == 0).all()
    assert (grads["wpe.weight"][:3] != 0).all()


def test_a_sequence_may_be_cut_after_its_last_target() -> None:
    model, (tokens, _) = generic_gpt(), batch(V, 1, T, 0)
    # All targets but one are ignored.
    targets = np.array([[-1, -1, 4, -1, -1]])
    loss, grads = model.loss_and_grads(tokens, targets)
    loss_of_cut, grads_of_cut = model.loss_and_grads(tokens[:, :3], targets[:, :3])
    assert loss == pytest.approx(loss_of_cut, rel=ROUNDING)
    assert_near(grads, grads_of_cut)


# Sums


def test_the_gradient_of_the_table_is_the_sum_of_its_two_paths() -> None:
    model, (tokens, targets) = generic_gpt(), batch(V, 1, T, 0)
    logits, saved = model.forward(tokens)
    _, saved_loss = tg.ops.cross_entropy.forward(logits, targets.reshape(-1))
    dlogits = tg.ops.cross_entropy.backward(1.0, saved_loss)
    grads = model.backward(dlogits, saved)
    # In a single sequence each position occurs once, so its gradient is that of the embedded token.
    _, saved_reading = tg.ops.embedding.forward(tokens[0], model.params["wte.weight"])
    reading = tg.ops.embedding.backward(grads["wpe.weight"][:T], saved_reading)
    _, dhead_weight, _ = tg.ops.linear.backward(dlogits, saved[-1])
    np.testing.assert_array_equal(grads["wte.weight"], reading + dhead_weight.T)
    # Tokens that do not occur have no gradient from the embedding, but one from the head.
    absent = np.setdiff1d(np.arange(V), tokens)
    assert (reading[absent] == 0).all()
    assert (grads["wte.weight"][absent] != 0).all()


def test_the_backward_is_linear_in_the_upstream_gradient() -> None:
    model, (tokens, _), rng = generic_gpt(), batch(V, B, T, 0), np.random.default_rng(0)
    logits, saved = model.forward(tokens)
    one, other = rng.standard_normal((2, *logits.shape))
    ones, others = model.backward(one, saved), model.backward(other, saved)
    whole = model.backward(2 * one - 3 * other, saved)
    expected = {name: 2 * ones[name] - 3 * others[name] for name in ones}
    assert_near(whole, expected, ones, others)


def test_gradients_of_micro_batches_add_up_weighted_by_their_targets() -> None:
    model, (tokens, targets) = generic_gpt(), batch(V, B, T, 0)
    targets[0, 1:], targets[1, :2] = -1, -1
    counts = (targets >= 0).sum(axis=1)
    assert counts.tolist() == [1, 3, 4]
    loss, grads = model.loss_and_grads(tokens, targets)
    parts = [model.loss_and_grads(tokens[[i]], targets[[i]]) for i in range(B)]
    weights = counts / counts.sum()
    mean_loss = sum(weight * part for weight, (part, _) in zip(weights, parts, strict=True))
    assert loss == pytest.approx(mean_loss, rel=ROUNDING)
    weighted = [
        {name: weight * grad for name, grad in part.items()}
        for weight, (_, part) in zip(weights, parts, strict=True)
    ]
    mean = {name: np.sum([part[name] for part in weighted], axis=0) for name in grads}
    assert_near(grads, mean, *weighted)


# Symmetries of the batch


def test_permuting_the_sequences_permutes_the_logits_only() -> None:
    model, (tokens, targets) = generic_gpt(), batch(V, B, T, 0)
    order = [2, 0, 1]
    logits, after = model.logits(tokens), model.logits(tokens[order])
    # Not bit for bit: the order of summation in a matrix product may depend on the row.
    assert_near({"logits": after}, {"logits": logits[order]})
    loss, grads = model.loss_and_grads(tokens, targets)
    loss_after, grads_after = model.loss_and_grads(tokens[order], targets[order])
    assert loss_after == pytest.approx(loss, rel=ROUNDING)
    assert_near(grads_after, grads)


# Extreme numbers


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
