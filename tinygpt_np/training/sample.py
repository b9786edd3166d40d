"""Sampling from a trained model: the text that follows a prompt."""

from collections.abc import Iterator

import numpy as np

from tinygpt_np.model.gpt import GPT
from tinygpt_np.model.sampling import generate
from tinygpt_np.text.tokenizers import Tokenizer


def warm_up(model: GPT) -> None:
    """Compiles what sampling needs, if anything, before the first character is waited for."""
    read_on = model.decoder(1)
    for length in (min(2, model.block_size), 1):
        read_on(np.zeros((1, length), np.int64))


def stream(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    tokens: int | None,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int | None = None,
    top_p: float | None = None,
) -> Iterator[str]:
    """Yield the text that follows the prompt, as it is made.

    An empty prompt is tokenizer.start(); the rules are those of generate.generate.
    """
    ids = tokenizer.encode(prompt) if prompt else tokenizer.start()
    read_on = model.decoder(1)

    def next_logits(fresh: np.ndarray) -> np.ndarray:
        # What pads the vocabulary is no token.
        return read_on(fresh)[:, : tokenizer.vocab_size]

    made = generate(next_logits, ids, tokens, temperature, top_k, seed, top_p)
    return tokenizer.stream(int(token) for token in made)
