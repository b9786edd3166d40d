"""The base class of the models: checked arguments, loss, logits, decoding."""

import re
from typing import Any

import numpy as np
import pytest

from tinygpt_np import GPT, Bigram, GPTConfig
from tinygpt_np.model.language_model import LanguageModel

V, T = 7, 4
CONFIG = GPTConfig(vocab_size=V, block_size=T, n_layer=1, n_head=2, n_embd=6)
TOKENS = np.array([[3, 0, 6, 1], [5, 2, 2, 4]])
TARGETS = np.array([[0, 6, 1, 5], [2, 2, 4, 3]])


@pytest.fixture(scope="module")
def model() -> GPT:
    return GPT(CONFIG, dtype="float64")


def changed(array: np.ndarray, place: tuple[int, int], value: int) -> np.ndarray:
    array = array.copy()
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("tokens", "targets", "error", "message"),
    [
        (TOKENS.tolist(), TARGETS, TypeError, "tokens must be an array of integers, not list"),
        (TOKENS > 0, TARGETS, TypeError, "tokens must be an array of integers, not bool"),
        (changed(TOKENS, (1, 2), V), TARGETS, ValueError, "tokens[1, 2] is 7"),
        (changed(TOKENS, (1, 2), -1), TARGETS, ValueError, "tokens[1, 2] is -1"),
        (TOKENS, TARGETS * 1.0, TypeError, "targets must be an array of integers, not float64"),
        (TOKENS, changed(TARGETS, (0, 3), V), ValueError, "[-1, 7), but targets[0, 3] is 7"),
        (TOKENS, changed(TARGETS, (0, 3), -2), ValueError, "targets[0, 3] is -2"),
        (TOKENS, TARGETS[:, :3], ValueError, "targets must be (2, 4) like tokens, not (2, 3)"),
        (TOKENS, np.full_like(TARGETS, -1), ValueError, "every target is -1"),
        *((np.zeros(shape, int), TARGETS, ValueError,
           f"tokens must be (B, T) with B ≥ 1 and 1 ≤ T ≤ block_size = 4, not {shape}")
          for shape in ((3,), (0, 3), (2, 0), (2, 5))),
    ],
)  # fmt: skip
def test_wrong_tokens_and_targets_are_refused(
    model: GPT, tokens: Any, targets: Any, error: type[Exception], message: str
) -> None:
    for function in (model.loss, model.loss_and_grads):
        with pytest.raises(error, match=re.escape(message)):
            function(tokens, targets)


def test_tokens_and_targets_may_have_any_integer_dtype(model: GPT) -> None:
    loss = model.loss(TOKENS.astype(np.uint64), TARGETS.astype(np.uint64))
    assert loss == model.loss(TOKENS, TARGETS)
    found = model.generate(TOKENS.astype(np.uint64), 6, seed=2)
    np.testing.assert_array_equal([*found], [*model.generate(TOKENS, 6, seed=2)])


def test_generate_names_the_position_of_a_token_out_of_range(model: GPT) -> None:
    prompt = np.array([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, V, 6]])  # Longer than the block.
    with pytest.raises(ValueError, match=r"tokens\[1, 4\] is 7"):
        model.generate(prompt, 3)


def test_the_default_decoder_computes_the_last_tokens_again(model: GPT) -> None:
    sequences = np.random.default_rng(0).integers(0, V, (2, 9))
    read = LanguageModel.decoder(model, 2)
    read(sequences[:, :3])
    for end in range(4, 10):
        expected = model.logits(sequences[:, max(0, end - T) : end])[:, -1]
        np.testing.assert_array_equal(read(sequences[:, end - 1 : end]), expected)


def test_a_dtype_other_than_float32_and_float64_is_refused() -> None:
    with pytest.raises(ValueError, match='must be "float32" or "float64"'):
        GPT(CONFIG, dtype="float16")
    with pytest.raises(ValueError, match="numba backend computes in float32 only, not in float64"):
        GPT(CONFIG, dtype="float64", backend="numba")


def test_the_repr_of_a_model_has_its_size_and_backend() -> None:
    expected = "1 layer, 2 heads, 6 channels, block 4, vocabulary 7, float32"
    assert repr(GPT(CONFIG)) == f"<GPT: 516 parameters, {expected}, numpy>"
    assert repr(Bigram(12)).startswith("<Bigram: 144 parameters, vocabulary 12,")
