"""The bigram baseline: predict the next token from the last one alone.

The model is a V×V table whose row i holds the logits of the token after token i. Its lowest loss is
the entropy of the next token given the last; a GPT gets below it only by using earlier tokens.
Source: "Let's build GPT" 00:22:11.
"""

import sys
from collections.abc import Callable

import numpy as np

from tinygpt_np import backend as backends
from tinygpt_np.config import generator
from tinygpt_np.model.language_model import LanguageModel, Saved, float_dtype
from tinygpt_np.storage.parameters import Tensors


class Bigram(LanguageModel):
    """The bigram model. params: `wte.weight` (V, V), drawn from N(0, 1) as in the lecture."""

    def __init__(
        self, vocab_size: int, seed: int = 1337, dtype: str = "float32", backend: str = "numpy"
    ) -> None:
        if vocab_size < 1:
            raise ValueError(f"vocab_size must be positive, not {vocab_size}")
        self.vocab_size, self.block_size = vocab_size, sys.maxsize  # Any length.
        self.ops = backends.load(backend)
        table = generator(seed, "init").standard_normal((vocab_size, vocab_size))  # (V, V)
        self.params = {"wte.weight": table.astype(float_dtype(dtype))}  # (V, V)

    def forward(self, tokens: np.ndarray, masks: Tensors | None = None) -> tuple[np.ndarray, Saved]:
        """tokens (B, T) -> logits (N, V), saved."""
        ids, table = tokens.reshape(-1), self.params["wte.weight"]  # (N,), (V, V)
        logits, saved = self.ops.embedding.forward(ids, table)  # (N, V)
        return logits, saved

    def backward(self, dlogits: np.ndarray, saved: Saved) -> Tensors:
        """dlogits (N, V) -> the gradient of the table, by name."""
        # logits, saved = self.ops.embedding.forward(ids, table)
        dtable = self.ops.embedding.backward(dlogits, saved)  # (V, V)
        return {"wte.weight": dtable}

    def decoder(self, batch: int) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function: the next tokens (B, T) -> logits (B, V) after the last of them."""
        return lambda tokens: self.logits(tokens[:, -1:])[:, -1]
