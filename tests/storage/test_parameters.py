"""The names, shapes and number of a GPT's parameters and dropout masks."""

import numpy as np
import pytest

import tinygpt_np as tg
from tinygpt_np.storage.parameters import mask_shapes, param_count, param_shapes


@pytest.mark.parametrize("bias", [True, False])
def test_names_shapes_and_number_are_those_of_a_models_parameters_and_masks(bias: bool) -> None:
    config = tg.GPTConfig(
        vocab_size=11, block_size=7, n_layer=3, n_head=2, n_embd=6, bias=bias, dropout=0.1
    )
    model = tg.GPT(config)
    assert param_shapes(config) == {name: param.shape for name, param in model.params.items()}
    assert param_count(config) == sum(param.size for param in model.params.values())
    masks = model.draw_masks(2, 5, np.random.default_rng(0))
    assert mask_shapes(config, 2, 5) == {name: mask.shape for name, mask in masks.items()}
    assert {mask.shape for mask in masks.values()} == {(10, 6), (2, 2, 5, 5)}
