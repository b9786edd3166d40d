"""What holds for the whole GPT whatever its weights: symmetries, sums, and numbers at the edges.

Where the mathematics is exact, so is the test. Elsewhere two ways of adding the same numbers up
may differ by rounding: see ROUNDING.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import tinygpt_np as tg
from tinygpt_np.gradcheck.suite import CONFIG, batch, generic_gpt
from tinygpt_np.storage.parameters import Tensors

V, C, T, B = CONFIG.vocab_size, CONFIG.n_embd, 5, 3
# A gradient passes through 10 operations a block and 3 besides; the longest sum in one of them, of
# 4C products, rounds 4C times. Of order one, so this is what two orders of adding may differ by,
# as a share of the norm of what is added.
ROUNDING = (10 * CONFIG.n_layer + 3) * 4 * C * float(np.finfo(np.float64).eps)
both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def assert_near(found: Tensors, expected: Tensors, *parts: Tensors) -> None:
    """Asserts that tensors agree to rounding of themselves, or of the parts they are made of."""
    for name, grad in expected.items():
        size = sum(float(np.linalg.norm(part[name])) for part in parts or (expected,))
        error = float(np.linalg.norm(found[name] - grad))
        assert error <= ROUNDING * size, f"{name} is off by {error:.1e} of {size:.1e}"


def with_scores(scale: float) -> tg.GPT:
    """A model whose attention scores are of the size of `scale`."""
    model = generic_gpt()
    for layer in range(CONFIG.n_layer):
        for kind in ("weight", "bias"):
            model.params[f"h.{layer}.attn.c_attn.{kind}"][..., : 2 * C] *= scale**0.5
    return model


# Causality


def test_with_huge_scores_too_the_future_never_changes_the_past() -> None:
    model, (tokens, _) = with_scores(1e4), batch(V, B, T, 0)
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


def test_a_text_may_be_cut_after_its_last_target() -> None:
    model, (tokens, _) = generic_gpt(), batch(V, 1, T, 0)
    # All targets but one are not counted.
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
    # With a single text each position is read once, so its gradient is that of the embedded token.
    _, saved_reading = tg.ops.embedding.forward(tokens[0], model.params["wte.weight"])
    reading = tg.ops.embedding.backward(grads["wpe.weight"][:T], saved_reading)
    _, dhead_weight, _ = tg.ops.linear.backward(dlogits, saved[-1])
    np.testing.assert_array_equal(grads["wte.weight"], reading + dhead_weight.T)
    # Both are there: tokens that do not occur are not read, but they too are scored.
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


def test_twice_the_upstream_gradient_gives_exactly_twice_the_gradients() -> None:
    model, (tokens, _), rng = generic_gpt(), batch(V, B, T, 0), np.random.default_rng(0)
    logits, saved = model.forward(tokens)
    dlogits = rng.standard_normal(logits.shape)
    once, twice = model.backward(dlogits, saved), model.backward(2 * dlogits, saved)
    for name, grad in once.items():
        np.testing.assert_array_equal(twice[name], 2 * grad, err_msg=name)


def test_gradients_of_micro_batches_add_up_by_how_many_targets_each_counts() -> None:
    model, (tokens, targets) = generic_gpt(), batch(V, B, T, 0)
    targets[0, 1:], targets[1, :2] = -1, -1
    counts = (targets >= 0).sum(axis=1)
    assert counts.tolist() == [1, 3, 4]
    loss, grads = model.loss_and_grads(tokens, targets)
    parts = [model.loss_and_grads(tokens[[i]], targets[[i]]) for i in range(B)]
    shares = counts / counts.sum()
    mean_loss = sum(share * part for share, (part, _) in zip(shares, parts, strict=True))
    assert loss == pytest.approx(mean_loss, rel=ROUNDING)
    weighted = [
        {name: share * grad for name, grad in part.items()}
        for share, (_, part) in zip(shares, parts, strict=True)
    ]
    mean = {name: np.sum([part[name] for part in weighted], axis=0) for name in grads}
    assert_near(grads, mean, *weighted)


# Symmetries of the batch


def test_permuting_the_texts_permutes_the_logits_and_leaves_the_gradients() -> None:
    model, (tokens, targets) = generic_gpt(), batch(V, B, T, 0)
    order = [2, 0, 1]
    logits, after = model.logits(tokens), model.logits(tokens[order])
    # Not bit for bit: how a matrix product adds up a row may depend on where the row stands.
    assert_near({"logits": after}, {"logits": logits[order]})
    loss, grads = model.loss_and_grads(tokens, targets)
    loss_after, grads_after = model.loss_and_grads(tokens[order], targets[order])
    assert loss_after == pytest.approx(loss, rel=ROUNDING)
    assert_near(grads_after, grads)


def test_a_text_that_is_repeated_counts_as_once() -> None:
    model, (tokens, targets) = generic_gpt(), batch(V, 1, T, 0)
    loss, grads = model.loss_and_grads(tokens, targets)
    loss_twice, grads_twice = model.loss_and_grads(tokens[[0, 0]], targets[[0, 0]])
    assert loss_twice == pytest.approx(loss, rel=ROUNDING)
    assert_near(grads_twice, grads)


# Edges


@both_dtypes
def test_with_a_vocabulary_of_one_there_is_nothing_to_learn(dtype: str) -> None:
    model = generic_gpt(replace(CONFIG, vocab_size=1), dtype=dtype)
    tokens = np.zeros((B, T), dtype=np.int64)
    loss, grads = model.loss_and_grads(tokens, tokens)
    assert loss == 0
    for name, grad in grads.items():
        assert (grad == 0).all(), name


@both_dtypes
def test_a_single_token_has_nothing_to_compare(dtype: str) -> None:
    model, (tokens, targets) = generic_gpt(dtype=dtype), batch(V, B, 1, 0)
    _, grads = model.loss_and_grads(tokens, targets)
    for layer in range(CONFIG.n_layer):
        query, key, value = np.split(grads[f"h.{layer}.attn.c_attn.weight"], 3, axis=-1)
        assert (query == 0).all()
        assert (key == 0).all()
        assert (value != 0).all()


@pytest.mark.parametrize(("dtype", "size"), [("float32", 1e-40), ("float64", 1e-310)])
def test_denormal_weights_guess_blindly(dtype: str, size: float) -> None:
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
