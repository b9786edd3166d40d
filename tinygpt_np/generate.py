"""Sampling: one token after another, each fed back in."""

from collections.abc import Callable, Iterator

import numpy as np

from tinygpt_np.config import generator


def generate(
    next_logits: Callable[[np.ndarray], np.ndarray],
    tokens: np.ndarray,
    max_new_tokens: int | None,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int | None = None,
) -> Iterator[np.ndarray]:
    """Yields the tokens that follow, one for each text.

    next_logits: (B, T) the next tokens of each text -> (B, V) logits of the token after them. It is
    given the prompt first, then each token drawn, (B, 1), and remembers what it needs of them.
    tokens: (T,) or (B, T) integers, B and T ≥ 1. Each item yielded has shape () or (B,).
    max_new_tokens: how many; None goes on for ever.
    temperature: logits are divided by it; 0 always takes the likeliest token.
    top_k: only the k likeliest tokens (and those as likely as the k-th) are drawn; None draws all.
    seed: the same seed gives the same tokens; None takes one from the system.
    """
    check_rules(tokens, max_new_tokens, temperature, top_k)
    rng = np.random.default_rng() if seed is None else generator(seed, "sampling")
    prompt = np.atleast_2d(tokens).astype(np.int64)  # (B, T)

    def stream() -> Iterator[np.ndarray]:
        fresh, made = prompt, 0
        while max_new_tokens is None or made < max_new_tokens:
            drawn = draw(next_logits(fresh), temperature, top_k, rng)  # (B,)
            fresh = drawn[:, None]  # (B, 1)
            made += 1
            yield drawn if tokens.ndim == 2 else drawn[0]

    return stream()


def draw(
    logits: np.ndarray, temperature: float, top_k: int | None, rng: np.random.Generator
) -> np.ndarray:
    """logits (B, V) -> one token a row, (B,). Raises ValueError if one is +inf or NaN."""
    if not (logits < np.inf).all():
        raise ValueError("the model's logits are not finite; its weights are damaged or too large")
    if temperature == 0:
        return logits.argmax(axis=-1)  # (B,)
    distance = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)  # (B, V)
    with np.errstate(over="ignore"):  # Near temperature 0 all but the likeliest go to -inf.
        scaled = distance / temperature  # (B, V)
    if top_k is not None and top_k < scaled.shape[-1]:
        smallest = np.partition(scaled, -top_k, axis=-1)[:, -top_k, None]  # (B, 1)
        scaled = np.where(scaled < smallest, -np.inf, scaled)  # (B, V)
    # Softmax without its division: the last sum is the total, and draws are scaled by it instead.
    cumulative = np.exp(scaled).cumsum(axis=-1)  # (B, V)
    threshold = rng.random((len(scaled), 1)) * cumulative[:, -1:]  # (B, 1)
    return (cumulative <= threshold).sum(axis=-1)  # (B,)


def check_rules(
    tokens: np.ndarray, max_new_tokens: int | None, temperature: float, top_k: int | None
) -> None:
    if tokens.ndim not in (1, 2) or not tokens.size:
        raise ValueError(f"tokens must be (T,) or (B, T) with B and T ≥ 1, not {tokens.shape}")
    if max_new_tokens is not None and max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be zero or more, not {max_new_tokens}")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be finite and zero or more, not {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be 1 or more, not {top_k}")
