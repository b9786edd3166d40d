"""Decoding with cached keys and values gives the logits of the whole context, one row per token."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.architecture import Watch
from helpers.config_fields import combined, one_by_one
from helpers.errors import relative_error

from tinygpt_np import GPT, GPTConfig
from tinygpt_np.model.decoder import Decoder

B, V, BLOCK, L, H, C = 3, 11, 7, 4, 2, 10
CONFIG = GPTConfig(vocab_size=V, block_size=BLOCK, n_layer=L, n_head=H, n_embd=C, bias=True)
# Enough heads for each number of heads of keys and values, and an even head size.
GROUPED = replace(CONFIG, n_layer=3, n_head=4, n_embd=24)
SEQUENCES = np.random.default_rng(5).integers(0, V, (B, 20))


def generic(config: GPTConfig = CONFIG, dtype: str = "float64") -> GPT:
    """Return a model at generic values with activations of order one, so attention is spread."""
    rng = np.random.default_rng(3)
    model = GPT(config, dtype=dtype)
    for name, param in model.params.items():
        fan_in = param.shape[0] if ".c_" in name and param.ndim == 2 else 1
        model.params[name] = (rng.standard_normal(param.shape) / fan_in**0.5).astype(dtype)
    return model


def poisoned(model: GPT) -> Decoder:
    """Return a decoder whose cache is NaN until it is written."""
    decoder = Decoder(model.config, model.params, model.ops, B)
    decoder.cache.fill(np.nan)
    return decoder


@pytest.mark.parametrize(
    ("dtype", "bound", "gelu", "bias"),
    [
        ("float64", 1e-12, "gelu", True),
        ("float64", 1e-12, "gelu_exact", False),
        ("float32", 1e-5, "gelu", True),
    ],
)
@pytest.mark.parametrize("prompt", [1, 4, BLOCK, BLOCK + 2])
def test_every_step_gives_the_logits_of_the_whole_context(
    dtype: str, bound: float, gelu: Any, bias: bool, prompt: int
) -> None:
    assert_every_step_is_right(replace(CONFIG, activation=gelu, bias=bias), prompt, dtype, bound)


def assert_every_step_is_right(
    config: GPTConfig, prompt: int, dtype: str = "float64", bound: float = 1e-12
) -> None:
    """Read a prompt, then single tokens to past block_size, and compare with the whole context."""
    model = generic(config, dtype)
    decoder = poisoned(model)
    for end in range(prompt, BLOCK + 5):
        found = decoder.read(SEQUENCES[:, (end - 1 if end > prompt else 0) : end])
        expected = model.logits(SEQUENCES[:, max(0, end - BLOCK) : end])[:, -1]
        assert found.dtype == dtype
        assert relative_error(found, expected) < bound, f"after {end} tokens"


@pytest.mark.parametrize("name", one_by_one(GROUPED))
def test_every_value_of_every_field_gives_the_logits_of_the_whole_context(name: str) -> None:
    for prompt in (1, 4, BLOCK + 2):
        assert_every_step_is_right(one_by_one(GROUPED)[name], prompt)


@pytest.mark.parametrize("seed", range(12))
def test_combined_fields_give_the_logits_of_the_whole_context(seed: int) -> None:
    assert_every_step_is_right(combined(GROUPED, seed), prompt=(1, 4, BLOCK, BLOCK + 2)[seed % 4])


def test_several_tokens_together_give_the_logits_of_a_single_layer() -> None:
    model = generic(replace(CONFIG, n_layer=1))
    decoder = poisoned(model)
    decoder.read(SEQUENCES[:, :2])
    found = decoder.read(SEQUENCES[:, 2:5])
    assert relative_error(found, model.logits(SEQUENCES[:, :5])[:, -1]) < 1e-12


# Tokens read before, and tokens read in the next call.
READS = {"prompt": (0, 5), "step": (4, 1), "past block_size": (BLOCK, 1)}


@pytest.mark.parametrize(("before", "count"), READS.values(), ids=READS)
def test_a_step_computes_one_row_and_the_last_block_only_the_last_rows(
    before: int, count: int
) -> None:
    model = generic()
    decoder = Decoder(model.config, model.params, model.ops, B)
    if before:
        decoder.read(SEQUENCES[:, :before])
    shapes: list[tuple[int, ...]] = []
    forward = decoder.ops.linear.forward

    def spy(*args: Any) -> Any:
        y, saved = forward(*args)
        shapes.append(y.shape)
        return y, saved

    decoder.ops.linear = SimpleNamespace(forward=spy)
    tokens = SEQUENCES[:, before : before + count]
    assert Watch("model", "decoder.py").run(lambda: decoder.read(tokens)).checked >= 40
    rows = B * (count if before < BLOCK else BLOCK)
    block = [(rows, 3 * C), (rows, C), (rows, 4 * C), (rows, C)]
    last_block = [(rows, 2 * C), (B, C), (B, C), (B, 4 * C), (B, C)]
    assert shapes == [*block * (L - 1), *last_block, (B, V)]


@pytest.mark.parametrize(("before", "count"), READS.values(), ids=READS)
def test_stated_shapes_hold_for_newer_parts(before: int, count: int) -> None:
    model = generic(
        replace(GROUPED, n_kv_head=2, n_inner=13, norm="rms_norm", positions="rotary_pairs",
                qk_norm=True, activation="swiglu", tied_head=False, logit_soft_cap=3.0)
    )  # fmt: skip
    decoder = Decoder(model.config, model.params, model.ops, B)
    if before:
        decoder.read(SEQUENCES[:, :before])
    tokens = SEQUENCES[:, before : before + count]
    assert Watch("model", "decoder.py").run(lambda: decoder.read(tokens)).checked >= 60
