"""The names, shapes and number of a GPT's parameters and dropout masks."""

import numpy as np
import pytest

import tinygpt_np as tg
from tinygpt_np.storage.parameters import mask_shapes, param_count, param_shapes

CONFIG = tg.GPTConfig(
    vocab_size=11, block_size=7, n_layer=3, n_head=2, n_embd=6, bias=True, dropout=0.1
)


@pytest.mark.parametrize("bias", [True, False])
def test_names_and_shapes_are_those_of_a_models_parameters(bias: bool) -> None:
    config = tg.GPTConfig(vocab_size=11, block_size=7, n_layer=3, n_head=2, n_embd=6, bias=bias)
    params = tg.GPT(config).params
    assert param_shapes(config) == {name: param.shape for name, param in params.items()}
    assert param_count(config) == sum(param.size for param in params.values())


def test_masks_have_the_shapes_of_what_they_multiply() -> None:
    rng, (B, T) = np.random.default_rng(0), (2, 5)
    drawn = tg.GPT(CONFIG).draw_masks(B, T, rng)
    assert mask_shapes(CONFIG, B, T) == {name: mask.shape for name, mask in drawn.items()}
    assert set(mask_shapes(CONFIG, B, T).values()) == {(10, 6), (2, 2, 5, 5)}
    assert len(drawn) == 1 + 3 * CONFIG.n_layer
