"""Sampling: the prompt and the characters that follow it."""

import itertools

import numpy as np
import pytest

from tinygpt_np import GPT, CharTokenizer, GPTConfig
from tinygpt_np.training import sample


@pytest.fixture(scope="module")
def model() -> GPT:
    """A GPT that likes best to repeat the last character: its blocks add nothing."""
    model = GPT(GPTConfig(vocab_size=5, block_size=4, n_layer=1, n_head=2, n_embd=6))
    for name, param in model.params.items():
        model.params[name] = np.zeros_like(param)
    model.params["wte.weight"] = np.eye(5, 6, dtype=np.float32)
    model.params["ln_f.weight"] = np.ones(6, np.float32)
    return model


def repeated(model: GPT, vocabulary: str, prompt: str) -> str:
    return "".join(sample.stream(model, CharTokenizer(vocabulary), prompt, 3, temperature=0))


def test_stream_goes_on_from_the_prompt(model: GPT) -> None:
    assert repeated(model, "ab\ncd", "bad") == "ddd"


def test_an_empty_prompt_goes_on_from_a_new_line(model: GPT) -> None:
    assert repeated(model, "ab\ncd", "") == "\n\n\n"


def test_an_empty_prompt_without_newlines_goes_on_from_the_first_character(model: GPT) -> None:
    assert repeated(model, "xabcd", "") == "xxx"


def test_stream_yields_as_many_characters_as_asked_for(model: GPT) -> None:
    made = list(sample.stream(model, CharTokenizer("abcde"), "bad", 9, seed=1))
    assert [len(char) for char in made] == [1] * 9


def test_stream_yields_what_the_model_draws(model: GPT) -> None:
    tokenizer = CharTokenizer("abcde")
    made = sample.stream(model, tokenizer, "bad", 20, temperature=9.0, seed=3)
    ids = model.generate(tokenizer.encode("bad"), 20, temperature=9.0, seed=3)
    assert "".join(made) == tokenizer.decode([int(token) for token in ids])


def test_stream_draws_from_the_likeliest_only_if_asked_to(model: GPT) -> None:
    made = sample.stream(model, CharTokenizer("abcde"), "bad", 20, temperature=9.0, top_k=1)
    assert "".join(made) == "d" * 20


def test_stream_without_a_number_of_tokens_does_not_end(model: GPT) -> None:
    made = sample.stream(model, CharTokenizer("abcde"), "bad", None)
    assert len(list(itertools.islice(made, 100))) == 100


def test_an_unknown_character_in_the_prompt_is_named(model: GPT) -> None:
    with pytest.raises(ValueError, match=r"'é' \(U\+00E9\) at position 1"):
        repeated(model, "abcde", "bé")
