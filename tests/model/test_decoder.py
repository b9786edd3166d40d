"""Decoding with keys and values kept: the logits of the whole window, at one row a token."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.architecture import Watch
from helpers.errors import relative_error

from tinygpt_np import GPT, GPTConfig
from tinygpt_np.model.decoder import Decoder

B, V, BLOCK, L, H, C = 3, 11, 7, 4, 2, 10
CONFIG = GPTConfig(vocab_size=V, block_size=BLOCK, n_layer=L, n_head=H, n_embd=C, bias=True)
TEXT = np.random.default_rng(5).integers(0, V, (B, 20))


def generic(config: GPTConfig = CONFIG, dtype: str = "float64") -> GPT:
    """A model at generic values that keep activations at order one, so that attention is shared."""
    rng = np.random.default_rng(3)
    model = GPT(config, dtype=dtype)
    for name, param in model.params.items():
        fan_in = param.shape[0] if ".c_" in name and param.ndim == 2 else 1
        model.params[name] = (rng.standard_normal(param.shape) / fan_in**0.5).astype(dtype)
    return model


def poisoned(model: GPT, batch: int = B) -> Decoder:
    """A decoder in which reading what was never written shows."""
    decoder = Decoder(model.config, model.params, model.ops, batch)
    decoder.cache.fill(np.nan)
    return decoder


def after(decoder: Decoder, text: np.ndarray, prompt: int) -> np.ndarray:
    """The logits after a text whose first `prompt` tokens are read in one go."""
    logits = decoder.read(text[:, :prompt])
    for place in range(prompt, text.shape[1]):
        logits = decoder.read(text[:, place : place + 1])
    return logits


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize(("gelu", "bias"), [("tanh", True), ("exact", True), ("tanh", False)])
@pytest.mark.parametrize("prompt", [1, 4, BLOCK, BLOCK + 2])
def test_every_step_gives_the_logits_of_the_whole_window(
    dtype: str, bound: float, gelu: Any, bias: bool, prompt: int
) -> None:
    model = generic(replace(CONFIG, gelu=gelu, bias=bias), dtype)
    decoder = poisoned(model)
    for end in range(prompt, BLOCK + 5):
        found = decoder.read(TEXT[:, (end - 1 if end > prompt else 0) : end])
        expected = model.logits(TEXT[:, max(0, end - BLOCK) : end])[:, -1]
        assert found.dtype == dtype
        assert relative_error(found, expected) < bound, f"after {end} tokens"


def test_a_model_of_one_layer_gives_the_logits_of_the_whole_window() -> None:
    model = generic(replace(CONFIG, n_layer=1))
    found = after(poisoned(model), TEXT[:, :6], 4)
    assert relative_error(found, model.logits(TEXT[:, :6])[:, -1]) < 1e-12


def test_several_tokens_behind_a_text_give_the_logits_of_the_whole_window() -> None:
    model = generic()
    decoder = poisoned(model)
    decoder.read(TEXT[:, :2])
    found = decoder.read(TEXT[:, 2:5])
    assert relative_error(found, model.logits(TEXT[:, :5])[:, -1]) < 1e-12


def test_what_is_kept_of_a_prompt_is_what_is_kept_of_its_tokens_one_by_one() -> None:
    model = generic()
    at_once, one_by_one = (Decoder(model.config, model.params, model.ops, B) for _ in range(2))
    after(at_once, TEXT[:, :5], 5)
    after(one_by_one, TEXT[:, :5], 1)
    assert relative_error(one_by_one.cache[..., :5, :], at_once.cache[..., :5, :]) < 1e-12


@pytest.mark.parametrize("prompt", [1, 3])
def test_an_early_token_changes_the_logits_of_its_own_text_alone(prompt: int) -> None:
    model = generic()
    changed = TEXT[:, :6].copy()
    changed[1, 0] = (changed[1, 0] + 1) % V
    before, now = (after(poisoned(model), text, prompt) for text in (TEXT[:, :6], changed))
    assert (np.abs(now[1] - before[1]) > 1e-4).any()
    np.testing.assert_array_equal(now[[0, 2]], before[[0, 2]])


def test_a_token_that_has_left_the_window_counts_no_more() -> None:
    model = generic()
    changed = TEXT[:, : BLOCK + 1].copy()
    changed[:, 0] = (changed[:, 0] + 1) % V
    before, now = (after(poisoned(model), text, 2) for text in (TEXT[:, : BLOCK + 1], changed))
    np.testing.assert_array_equal(now, before)


def test_two_decoders_of_one_model_do_not_disturb_each_other() -> None:
    model = generic()
    one, other = poisoned(model), poisoned(model)
    one.read(TEXT[:, :3])
    other.read(TEXT[:, 8:10])
    found = one.read(TEXT[:, 3:4])
    assert relative_error(found, model.logits(TEXT[:, :4])[:, -1]) < 1e-12


def linear_outputs(decoder: Decoder, tokens: np.ndarray) -> list[tuple[int, ...]]:
    """The shapes that ops.linear gives while a decoder reads on."""
    shapes: list[tuple[int, ...]] = []
    forward = decoder.ops.linear.forward

    def spy(*args: Any) -> Any:
        y, saved = forward(*args)
        shapes.append(y.shape)
        return y, saved

    decoder.ops.linear = SimpleNamespace(forward=spy)
    decoder.read(tokens)
    return shapes


def test_a_new_token_of_a_text_that_fits_is_one_row_a_text() -> None:
    model = generic()
    decoder = Decoder(model.config, model.params, model.ops, B)
    decoder.read(TEXT[:, :4])
    assert {rows for rows, _ in linear_outputs(decoder, TEXT[:, 4:5])} == {B}


@pytest.mark.parametrize("start", [0, BLOCK])
def test_of_a_window_the_last_block_asks_the_last_rows_alone(start: int) -> None:
    model = generic()
    decoder = Decoder(model.config, model.params, model.ops, B)
    if start:
        decoder.read(TEXT[:, :start])
    tokens = TEXT[:, start : start + 1] if start else TEXT[:, :BLOCK]
    rows = B * BLOCK
    block = [(rows, 3 * C), (rows, C), (rows, 4 * C), (rows, C)]
    last_block = [(rows, 2 * C), (B, C), (B, C), (B, 4 * C), (B, C)]
    expected = [*block * (L - 1), *last_block, (B, V)]
    assert linear_outputs(decoder, tokens) == expected


@pytest.mark.parametrize("kept", [0, 4, BLOCK], ids=["prompt", "step", "past-the-window"])
def test_every_shape_comment_of_decoding_is_true(kept: int) -> None:
    model = generic()
    decoder = Decoder(model.config, model.params, model.ops, B)
    if kept:
        decoder.read(TEXT[:, :kept])
    tokens = TEXT[:, kept : kept + 1] if kept else TEXT[:, :5]
    assert Watch("model", "decoder.py").run(lambda: decoder.read(tokens)).checked >= 40
