"""Small GPTs of every architecture, weights of order one, and tolerances of a compiled step."""

from dataclasses import fields, replace
from typing import Any, get_args

import numpy as np
import pytest
from helpers.errors import relative_error

import tinygpt_np as tg
from tinygpt_np.config import Architecture
from tinygpt_np.storage.parameters import Tensors

# No two sizes alike.
CONFIG = tg.GPTConfig(vocab_size=71, block_size=17, n_layer=2, n_head=4, n_embd=40, bias=True)
DROPPING = replace(CONFIG, dropout=0.3)
# The values of each field but the sizes above, the first of which is that of CONFIG.
VALUES: dict[str, tuple[Any, ...]] = {
    "n_kv_head": (0, 1, 2),
    "n_inner": (0, 50),
    "dropout": (0.0, 0.3),
    "bias": (True, False),
    "norm_epsilon": (1e-5, 0.5),
    "rope_theta": (10_000.0, 30.0),
    "qk_norm": (False, True),
    "tied_head": (True, False),
    "logit_soft_cap": (0.0, 3.0),
    **{field.name: get_args(field.type) for field in fields(Architecture) if get_args(field.type)},
}


def drawn(seed: int) -> tg.GPTConfig:
    """Return a configuration with a value of each field that is drawn by the seed."""
    rng = np.random.default_rng(seed)
    draws = {name: values[rng.integers(len(values))] for name, values in VALUES.items()}
    return replace(CONFIG, **draws)


# CONFIG with one other value, and then with many.
VARIANTS = {
    "default": CONFIG,
    **{f"{name}={value}": replace(CONFIG, **{name: value})
       for name, values in VALUES.items() for value in values[1:] if name != "rope_theta"},
    "rope_theta": replace(CONFIG, positions="rotary_halves", rope_theta=30.0),
    **{f"drawn {seed}": drawn(seed) for seed in range(12)},
}  # fmt: skip
# Sequences of a batch, shorter than a block, and how tests split them: into ones and twos.
BATCH, TIME = 7, 13
SPLIT = [slice(0, 1), slice(1, 2), slice(2, 4), slice(4, 5), slice(5, 7)]
MOST_ROWS = 20
# At these weights float32 errs by up to 1.4e-6 in a gradient (NumPy too) and 2e-7 in the loss.
GRADIENT, LOSS = 5e-6, 1e-6
every_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)


def generic(config: tg.GPTConfig, seed: int = 0) -> tuple[tg.GPT, np.ndarray, np.ndarray]:
    """Return a float32 model with weights of order one, tokens, and targets, some of them -1."""
    rng = np.random.default_rng(seed)
    model = tg.GPT(config)
    for name, param in model.params.items():
        model.params[name] = (0.5 * rng.standard_normal(param.shape)).astype(np.float32)
    tokens, targets = rng.integers(0, config.vocab_size, (2, BATCH, TIME))
    # A whole micro-batch, the beginning of a sequence, and one position.
    targets[1], targets[5, :9], targets[0, 2] = -1, -1, -1
    return model, tokens, targets


def in_float64(model: tg.GPT) -> tg.GPT:
    """Return the same model in float64."""
    found = tg.GPT(model.config, dtype="float64")
    found.params = {name: param.astype(np.float64) for name, param in model.params.items()}
    return found


def copied(tensors: Tensors) -> Tensors:
    return {name: tensor.copy() for name, tensor in tensors.items()}


def assert_close(found: Tensors, expected: Tensors, bound: float) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        error = relative_error(found[name], tensor)
        assert error <= bound, f"{name}: relative error {error:.2g} > {bound}"


def assert_same_bits(found: Tensors, expected: Tensors) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name, strict=True)
