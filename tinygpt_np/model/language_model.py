"""The base class of the models: loss, gradients and sampling from a forward and a backward."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinygpt_np import backend as backends
from tinygpt_np.config import counted
from tinygpt_np.model.sampling import generate
from tinygpt_np.ops.contract import INTEGERS, check_kind, check_range
from tinygpt_np.storage.parameters import Tensors

Saved = tuple[Any, ...]


class LanguageModel(ABC):
    """A model that predicts the next token.

    params: all parameters by name. ops: the module of operations. vocab_size: the number of
    different tokens (V). block_size: the length of the longest sequence it takes (T).
    """

    params: Tensors
    ops: Any
    vocab_size: int
    block_size: int

    def __repr__(self) -> str:
        """Return size, dtype and backend, such as <Bigram: 25 parameters, vocabulary 5, …>."""
        params = self.params.values()
        dtypes = sorted({str(param.dtype) for param in params})
        size = counted(sum(param.size for param in params), "parameter")
        config: Any = getattr(self, "config", None)  # A bigram has none.
        shape = [config.in_words()] if config else []
        parts = [size, *shape, f"vocabulary {self.vocab_size:,}", *dtypes]
        return f"<{type(self).__name__}: {', '.join(parts)}, {backends.name_of(self.ops)}>"

    @abstractmethod
    def forward(self, tokens: np.ndarray, masks: Tensors | None = None) -> tuple[np.ndarray, Saved]:
        """tokens (B, T), dropout masks or None for no dropout -> logits (N, V), saved."""

    @abstractmethod
    def backward(self, dlogits: np.ndarray, saved: Saved) -> Tensors:
        """dlogits (N, V) -> the gradient of every parameter, by name."""

    def logits(self, tokens: np.ndarray) -> np.ndarray:
        """tokens (B, T) integers -> logits (B, T, V), without dropout."""
        self.check_tokens(tokens)
        logits, _ = self.forward(tokens)  # (N, V)
        return logits.reshape(*tokens.shape, -1)  # (B, T, V)

    def loss(self, tokens: np.ndarray, targets: np.ndarray) -> float:
        """tokens, targets (B, T) -> mean cross-entropy in nats, without dropout.

        Targets of -1 are ignored.
        """
        self.check_targets(tokens, targets)
        logits, _ = self.forward(tokens)  # (N, V)
        loss, _ = self.ops.cross_entropy.forward(logits, targets.reshape(-1))  # ()
        return float(loss)

    def loss_and_grads(
        self, tokens: np.ndarray, targets: np.ndarray, masks: Tensors | None = None
    ) -> tuple[float, Tensors]:
        """tokens, targets (B, T), dropout masks or None -> loss in nats, gradients like params."""
        self.check_targets(tokens, targets)
        logits, saved = self.forward(tokens, masks)  # (N, V)
        loss, saved_loss = self.ops.cross_entropy.forward(logits, targets.reshape(-1))  # ()
        dlogits = self.ops.cross_entropy.backward(1.0, saved_loss)  # (N, V)
        return float(loss), self.backward(dlogits, saved)

    def generate(
        self,
        tokens: np.ndarray,
        max_new_tokens: int | None,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int | None = None,
        top_p: float | None = None,
    ) -> Iterator[np.ndarray]:
        """Iterate over the tokens that follow `tokens` (T,) or (B, T); see sampling.generate."""
        check_kind("tokens", tokens, INTEGERS)
        check_range("tokens", tokens, 0, self.vocab_size)
        batch = len(np.atleast_2d(tokens))
        return generate(
            self.decoder(batch), tokens, max_new_tokens, temperature, top_k, seed, top_p
        )

    def decoder(self, batch: int) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function: the next tokens (B, T) -> logits (B, V) after the last of them.

        batch: the number of sequences B. The function keeps the last block_size tokens and computes
        all of them again each time.
        """
        context = np.empty((batch, 0), np.int64)  # (B, T)

        def read(tokens: np.ndarray) -> np.ndarray:
            nonlocal context
            context = np.concatenate([context, tokens], axis=1)[:, -self.block_size :]  # (B, T)
            return self.logits(context)[:, -1]  # (B, V)

        return read

    def check_tokens(self, tokens: np.ndarray) -> None:
        """Raise unless tokens are (B, T) integers in [0, V) with 1 ≤ T ≤ block_size."""
        check_kind("tokens", tokens, INTEGERS)
        if tokens.ndim != 2 or not 1 <= tokens.shape[1] <= self.block_size or not tokens.size:
            wanted = f"(B, T) with B ≥ 1 and 1 ≤ T ≤ block_size = {self.block_size}"
            raise ValueError(f"tokens must be {wanted}, not {tokens.shape}")
        check_range("tokens", tokens, 0, self.vocab_size)

    def check_targets(self, tokens: np.ndarray, targets: np.ndarray) -> None:
        """Raise unless both fit the model and each other, and not all targets are ignored."""
        self.check_tokens(tokens)
        check_kind("targets", targets, INTEGERS)
        if targets.shape != tokens.shape:
            raise ValueError(f"targets must be {tokens.shape} like tokens, not {targets.shape}")
        check_range("targets", targets, -1, self.vocab_size)
        if (targets == -1).all():
            raise ValueError("every target is -1 (ignored), so there is no loss to average")


def float_dtype(name: str) -> np.dtype[Any]:
    """Return the dtype with this name. Raise ValueError unless it is float32 or float64."""
    if name not in ("float32", "float64"):
        raise ValueError(f'dtype must be "float32" or "float64", not {name!r}')
    return np.dtype(name)
