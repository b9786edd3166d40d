"""Twelve different layers are used in the order of their numbers, not of their names.

As strings, h.10 sorts before h.2; fewer than eleven layers would not show it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.errors import relative_error

from tinygpt_np import GPT, GPTConfig
from tinygpt_np.compiled.decoder import CompiledDecoder
from tinygpt_np.compiled.engine import CompiledEngine
from tinygpt_np.model.decoder import Decoder
from tinygpt_np.storage.parameters import param_shapes

CONFIG = GPTConfig(vocab_size=13, block_size=6, n_layer=12, n_head=2, n_embd=8, bias=True)
TOKENS, TARGETS = (np.random.default_rng(seed).integers(0, 13, (2, 6)) for seed in (1, 2))


@pytest.fixture(scope="module")
def model() -> GPT:
    """Return a model at generic values, with branches small enough to keep x finite."""
    model, rng = GPT(CONFIG), np.random.default_rng(3)
    for name, param in model.params.items():
        values = rng.standard_normal(param.shape) * (0.4 if param.ndim == 2 else 1)
        model.params[name] = values.astype(np.float32)
    return model


@pytest.fixture(scope="module")
def layer_by_layer(model: GPT) -> np.ndarray:
    """Return the logits (B, T, V) of the twelve blocks in order."""
    params = model.params
    x = params["wte.weight"][TOKENS.reshape(-1)] + np.tile(params["wpe.weight"], (2, 1))
    for layer in range(12):
        x, _ = model.block_forward(x, f"h.{layer}", 2, {})
    normed, _ = model.ops.layer_norm.forward(x, *model.affine("ln_f"))
    return (normed @ params["wte.weight"].T).reshape(2, 6, 13)


def test_the_model_runs_its_layers_in_order(model: GPT, layer_by_layer: np.ndarray) -> None:
    assert relative_error(model.logits(TOKENS), layer_by_layer) < 1e-5
    swapped = GPT(CONFIG, params=dict(model.params))
    for name in [name for name in model.params if name.startswith("h.10.")]:
        other = name.replace("h.10.", "h.2.")
        swapped.params[name], swapped.params[other] = model.params[other], model.params[name]
    assert relative_error(swapped.logits(TOKENS), layer_by_layer) > 1e-2


@pytest.mark.parametrize("compiled", [False, True])
def test_a_decoder_runs_its_layers_in_order(
    model: GPT, layer_by_layer: np.ndarray, compiled: bool
) -> None:
    decoder: Any = (
        CompiledDecoder(model.config, model.params, 2)
        if compiled
        else Decoder(model.config, model.params, model.ops, 2)
    )
    found = [decoder.read(TOKENS[:, :3]), *(decoder.read(TOKENS[:, i, None]) for i in range(3, 6))]
    for place, logits in enumerate(found, start=2):
        assert relative_error(logits, layer_by_layer[:, place]) < 1e-4


def test_the_training_step_runs_its_layers_in_order(model: GPT) -> None:
    loss, grads = model.loss_and_grads(TOKENS, TARGETS)
    with CompiledEngine(GPT(CONFIG, params=model.params), len(TOKENS), 1) as engine:
        step_loss, step_grads = engine.loss_and_grads(TOKENS, TARGETS)
        assert step_loss == pytest.approx(loss, rel=1e-5)
        for name, grad in grads.items():
            # The gradient of the key bias is zero up to rounding.
            scale = np.abs(grads[name.replace(".bias", ".weight")]).max()
            assert np.abs(step_grads[name] - grad).max() < 1e-3 * max(scale, np.abs(grad).max())


def test_parameters_are_loaded_in_the_order_of_their_layers(tmp_path: Path, model: GPT) -> None:
    model.save(tmp_path / "saved")
    model.save_pretrained(tmp_path / "gpt2")
    for found in (GPT.load(tmp_path / "saved"), GPT.from_pretrained(tmp_path / "gpt2")):
        assert list(found.params) == list(param_shapes(CONFIG))
        for name, param in model.params.items():
            np.testing.assert_array_equal(found.params[name], param, err_msg=name)
