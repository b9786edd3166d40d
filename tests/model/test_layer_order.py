"""Twelve different layers are used in the order of their numbers, not of their names.

As strings, h.10 sorts before h.2; fewer than eleven layers would not show it.
"""

from pathlib import Path

import numpy as np
import pytest
from helpers.errors import relative_error
from helpers.small_gpts import assert_same_bits

from tinygpt_np import GPT, GPTConfig
from tinygpt_np.compiled.decoder import CompiledDecoder
from tinygpt_np.compiled.engine import CompiledEngine
from tinygpt_np.model.decoder import Decoder
from tinygpt_np.storage.parameters import param_shapes

CONFIG = GPTConfig(vocab_size=13, block_size=6, n_layer=12, n_head=2, n_embd=8, bias=True)
TOKENS = np.random.default_rng(1).integers(0, 13, (2, 6))


def test_forward_decoders_training_and_files_have_the_layers_in_order(tmp_path: Path) -> None:
    model, rng = GPT(CONFIG), np.random.default_rng(3)
    for name, param in model.params.items():
        # Branches are small enough to keep x finite.
        values = rng.standard_normal(param.shape) * (0.4 if param.ndim == 2 else 1)
        model.params[name] = values.astype(np.float32)
    params = model.params
    x = params["wte.weight"][TOKENS.reshape(-1)] + np.tile(params["wpe.weight"], (2, 1))
    for layer in range(12):
        x, _ = model.block_forward(x, f"h.{layer}", 2, {})
    normed, _ = model.ops.layer_norm.forward(x, *model.affine("ln_f"))
    expected = (normed @ params["wte.weight"].T).reshape(2, 6, 13)
    assert relative_error(model.logits(TOKENS), expected) < 1e-5

    in_numpy, compiled = Decoder(CONFIG, params, model.ops, 2), CompiledDecoder(CONFIG, params, 2)
    for decoder in (in_numpy, compiled):
        assert relative_error(decoder.read(TOKENS[:, :3]), expected[:, 2]) < 1e-4
        assert relative_error(decoder.read(TOKENS[:, 3:4]), expected[:, 3]) < 1e-4

    loss, grads = model.loss_and_grads(TOKENS, TOKENS)
    with CompiledEngine(model, len(TOKENS), 1) as engine:
        found, found_grads = engine.loss_and_grads(TOKENS, TOKENS)
        assert found == pytest.approx(loss, rel=1e-5)
        for name in (name for name in grads if name.endswith(".weight")):
            assert relative_error(found_grads[name], grads[name]) < 1e-3, name

    model.save(tmp_path / "saved")
    model.save_pretrained(tmp_path / "gpt2")
    for loaded in (GPT.load(tmp_path / "saved"), GPT.from_pretrained(tmp_path / "gpt2")):
        assert list(loaded.params) == list(param_shapes(CONFIG))
        assert_same_bits(loaded.params, params)
