"""The whole GPT, at generic values of order one: gradients, PyTorch, causality, initialisation."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.errors import relative_error

import tinygpt_np as tg
from tinygpt_np.config import generator
from tinygpt_np.gradcheck.suite import CONFIG, NEWER, batch, generic_gpt
from tinygpt_np.storage.checkpoint import read_safetensors
from tinygpt_np.storage.parameters import param_count

VARIANTS = {
    "tanh-bias": CONFIG,
    "exact-no-bias": replace(CONFIG, activation="gelu_exact", bias=False),
    "dropout": replace(CONFIG, dropout=0.3),
    **NEWER,
}
FIXTURE = read_safetensors(Path(__file__).parents[1] / "fixtures" / "pytorch.safetensors")


def generic(config: tg.GPTConfig) -> tuple[tg.GPT, np.ndarray, np.ndarray]:
    """Return a float64 model of order one, tokens that repeat, and targets, one of them ignored."""
    return generic_gpt(config), *batch(config.vocab_size, 3, 5, 0)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_every_gradient_equals_the_numerical_one(config: tg.GPTConfig) -> None:
    model, tokens, targets = generic(config)
    masks = model.draw_masks(3, 5, np.random.default_rng(1))
    report = tg.gradcheck.check_model(model, tokens, targets, masks)
    assert report.ok, report
    assert {*model.params} <= {row.name for row in report.rows}
    # The key bias has no gradient.
    assert all(row.verdict == "zero" or row.relative < 1e-12 for row in report.rows[:-1]), report


@pytest.mark.parametrize(("gelu", "bias"), [("gelu", True), ("gelu_exact", False)])
def test_loss_and_gradients_are_those_of_pytorch(gelu: Any, bias: bool) -> None:
    prefix = {"gelu": "tanh.", "gelu_exact": "none."}[gelu]  # PyTorch calls the exact GELU "none".
    fixture = {n.removeprefix(prefix): t for n, t in FIXTURE.items() if n.startswith(prefix)}
    config = tg.GPTConfig(
        vocab_size=13, block_size=7, n_layer=2, n_head=2, n_embd=6, bias=bias, activation=gelu
    )
    model = tg.GPT(config, dtype="float64")
    model.params = {name: fixture[f"params.{name}"] for name in model.params}
    loss, grads = model.loss_and_grads(fixture["tokens"], fixture["targets"])
    assert loss == pytest.approx(float(fixture["loss"]), rel=1e-10)
    assert {f"grads.{name}" for name in grads} == {n for n in fixture if n.startswith("grads.")}
    for name, grad in grads.items():
        assert relative_error(grad, fixture[f"grads.{name}"]) < 1e-10, name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parameters_gradients_and_logits_have_the_requested_dtype(dtype: str) -> None:
    model = tg.GPT(replace(CONFIG, dropout=0.2), dtype=dtype)
    tokens = np.arange(5)[None]
    masks = model.draw_masks(1, 5, np.random.default_rng(0))
    _, grads = model.loss_and_grads(tokens, tokens, masks)
    arrays = [*model.params.values(), *grads.values(), *masks.values(), model.logits(tokens)]
    assert {array.dtype.name for array in arrays} == {dtype}


def test_the_initialisation_is_that_of_gpt2_drawn_from_the_seed() -> None:
    config = tg.GPTConfig(vocab_size=65, block_size=64, n_layer=3, n_head=4, n_embd=128, bias=True)
    params = tg.GPT(config, 5, "float64").params
    drawn = 0.02 * generator(5, "init").standard_normal((65, 128))
    np.testing.assert_array_equal(params["wte.weight"], drawn)
    assert param_count(config) == sum(param.size for param in params.values())
    for name, param in params.items():
        if name.endswith("bias"):
            assert (param == 0).all(), name
        elif "ln_" in name:
            assert (param == 1).all(), name
        else:
            scale = 0.02 / 6**0.5 if name.endswith("c_proj.weight") else 0.02
            # Five standard errors of a standard deviation and of a mean.
            assert param.std() == pytest.approx(scale, rel=5 / (2 * param.size) ** 0.5), name
            assert param.mean() == pytest.approx(0, abs=5 * scale / param.size**0.5), name


def test_embeddings_and_matrices_start_with_the_given_standard_deviations() -> None:
    usual, larger = tg.GPT(CONFIG), tg.GPT(replace(CONFIG, embedding_std=0.5, init_std=0.04))
    for name, param in usual.params.items():
        factor = 25 if name == "wte.weight" else 2 if param.ndim == 2 else 1
        np.testing.assert_allclose(larger.params[name], factor * param, rtol=1e-6)


def test_dropout_masks_are_drawn_where_gpt2_has_dropout() -> None:
    rng = np.random.default_rng(0)
    assert tg.GPT(CONFIG).draw_masks(3, 5, rng) == {}
    assert rng.random() == np.random.default_rng(0).random()
    masks = tg.GPT(replace(CONFIG, dropout=0.25)).draw_masks(3, 5, rng)
    branches = {f"h.{i}.{name}.c_proj" for i in (0, 1) for name in ("attn", "mlp")}
    assert set(masks) == {"drop", "h.0.attn", "h.1.attn", *branches}
    assert masks["h.0.attn"].shape == (3, 2, 5, 5)
    assert set(masks["drop"].flat) == {np.float32(0), np.float32(1) / np.float32(0.75)}


def test_the_first_tensor_that_is_not_finite_is_named() -> None:
    model, tokens, targets = generic(CONFIG)
    _, grads = model.loss_and_grads(tokens, targets)
    assert model.first_not_finite(tokens, {}, grads) == ""
    grads["h.0.ln_2.bias"][0] = np.inf
    grads["wte.weight"][0, 0] = np.nan
    assert model.first_not_finite(tokens, {}, grads) == "the gradient of h.0.ln_2.bias"
    model.params["ln_f.weight"][:] = 1e300
    model.params["wte.weight"][:] *= 1e10
    with np.errstate(all="ignore"):
        assert model.first_not_finite(tokens, {}, grads) == "the logits"
        model.params["h.1.mlp.c_fc.weight"][:] = 1.7e308
        place = model.first_not_finite(tokens, {}, {})
    assert place == "an activation of h.1.mlp.activation"
    for name in ("h.1.mlp.c_fc.weight", "wte.weight"):
        model.params[name][0, 1] = np.nan
        assert model.first_not_finite(tokens, {}, {}) == f"the parameter {name}"


@pytest.mark.parametrize("layer", ["h.1.attn.c_proj", "h.1.mlp.c_proj"])
def test_a_dropped_branch_adds_nothing(layer: str) -> None:
    model, tokens, _ = generic(CONFIG)
    dropped, _ = model.forward(tokens, {layer: np.zeros((15, 6))})
    for kind in ("weight", "bias"):
        model.params[f"{layer}.{kind}"] = np.zeros_like(model.params[f"{layer}.{kind}"])
    silent, _ = model.forward(tokens)
    np.testing.assert_array_equal(dropped, silent)


def test_a_cropped_model_keeps_the_first_positions() -> None:
    model, tokens = tg.GPT(CONFIG), np.arange(4)[None]
    np.testing.assert_array_equal(model.cropped(4).logits(tokens), model.logits(tokens))
    assert model.cropped(4).block_size == 4
    for size in (0, model.block_size + 1):
        with pytest.raises(ValueError, match=rf"block_size must be in .*, not {size}"):
            model.cropped(size)


def test_a_cropped_model_with_rotary_positions_keeps_all_parameters() -> None:
    model, tokens = tg.GPT(replace(CONFIG, n_head=3, positions="rotary_pairs")), np.arange(4)[None]
    assert model.cropped(4).params.keys() == model.params.keys()
    np.testing.assert_array_equal(model.cropped(4).logits(tokens), model.logits(tokens))


def test_an_untied_head_starts_at_zero_and_leaves_the_other_weights_as_they_are() -> None:
    untied, tied = tg.GPT(replace(CONFIG, tied_head=False)), tg.GPT(CONFIG)
    assert (untied.params.pop("lm_head.weight") == 0).all()
    for name, param in tied.params.items():
        np.testing.assert_array_equal(untied.params[name], param)


def test_logits_are_capped_after_the_head() -> None:
    tokens = np.arange(5)[None]
    model = generic_gpt(CONFIG)
    logits = model.logits(tokens)
    capped = generic_gpt(replace(CONFIG, logit_soft_cap=3.0)).logits(tokens)
    np.testing.assert_allclose(capped, 3 * np.tanh(logits / 3), rtol=1e-12)


def test_queries_and_keys_are_normalized_and_rotated_and_values_stay() -> None:
    config = NEWER["rotary pairs, QK-norm, squared ReLU, untied head, soft cap"]
    model, size, rng = generic_gpt(config), config.head_size, np.random.default_rng(0)
    qkv = rng.standard_normal((6, config.qkv_width))  # Two sequences of three tokens.
    turned, _ = model.heads_forward(qkv, 2)
    np.testing.assert_array_equal(turned[:, config.qk_width :], qkv[:, config.qk_width :])
    heads = qkv[:, : config.qk_width].reshape(2, 3, -1, size)
    rms = np.sqrt((heads**2).mean(axis=-1, keepdims=True) + config.norm_epsilon)
    pairs = (heads / rms).reshape(2, 3, -1, size // 2, 2)
    wave = config.rope_theta ** (-np.arange(size // 2) / (size // 2))
    angles = np.exp(1j * np.arange(3)[:, None, None] * wave)
    expected = (pairs[..., 0] + 1j * pairs[..., 1]) * angles
    found = turned[:, : config.qk_width].reshape(2, 3, -1, size // 2, 2)
    np.testing.assert_allclose(found[..., 0], expected.real, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found[..., 1], expected.imag, rtol=1e-12, atol=1e-14)
