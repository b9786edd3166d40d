"""Sampling: draw one token after another and feed each back into the model."""

from collections.abc import Callable, Iterator

import numpy as np

from tinygpt_np.config import generator
from tinygpt_np.text.tokenizers import Tokenizer


def generate(
    next_logits: Callable[[np.ndarray], np.ndarray],
    tokens: np.ndarray,
    max_new_tokens: int | None,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int | None = None,
    top_p: float | None = None,
) -> Iterator[np.ndarray]:
    """Yield the tokens that follow a prompt, one per sequence and step.

    The three rules are applied in the order temperature, top_k, top_p, as in transformers.

    Parameters
    ----------
    next_logits : callable
        ``next_logits(tokens (B, T)) -> logits (B, V)`` of the next token. It is called with the
        prompt, then with each new token, ``(B, 1)``, and keeps the state it needs.
    tokens : ndarray of int
        The prompt, ``(T,)`` or ``(B, T)``, with B and T ≥ 1.
    max_new_tokens : int or None
        How many tokens to draw; None never stops.
    temperature : float
        Divides the logits; 0 always takes the most likely token.
    top_k : int, optional
        Draw only from the k most likely tokens and any as likely as the k-th.
    seed : int, optional
        The same seed gives the same tokens; None takes a random seed.
    top_p : float, optional
        Nucleus sampling, in (0, 1]: draw only from the smallest set of most likely tokens whose
        probabilities sum to at least top_p, and any as likely as the least likely of the set. The
        probabilities are those after temperature and top_k.

    Yields
    ------
    ndarray of int
        ``()`` for a prompt ``(T,)``, ``(B,)`` for a prompt ``(B, T)``.
    """
    check_rules(tokens, max_new_tokens, temperature, top_k, top_p)
    rng = np.random.default_rng() if seed is None else generator(seed, "sampling")
    prompt = np.atleast_2d(tokens).astype(np.int64)  # (B, T)

    def stream() -> Iterator[np.ndarray]:
        fresh, made = prompt, 0
        while max_new_tokens is None or made < max_new_tokens:
            drawn = draw(next_logits(fresh), temperature, top_k, rng, top_p)  # (B,)
            fresh = drawn[:, None]  # (B, 1)
            made += 1
            yield drawn if tokens.ndim == 2 else drawn[0]

    return stream()


def stream_text(
    read_on: Callable[[np.ndarray], np.ndarray],
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int | None,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int | None = None,
    top_p: float | None = None,
) -> Iterator[str]:
    """Yield the text that follows a prompt as it is generated; see generate.

    read_on: the decoder of a model, for a batch of 1. An empty prompt means tokenizer.start().
    """
    tokens = tokenizer.encode(prompt) if prompt else tokenizer.start()

    def next_logits(fresh: np.ndarray) -> np.ndarray:
        return read_on(fresh)[:, : tokenizer.vocab_size]  # (1, V), without padding

    made = generate(next_logits, tokens, max_new_tokens, temperature, top_k, seed, top_p)
    return tokenizer.stream(int(token) for token in made)


def warm_up(read_on: Callable[[np.ndarray], np.ndarray], block_size: int) -> None:
    """Compile a decoder, if it is compiled, for prompts and for single tokens."""
    for length in (min(2, block_size), 1):
        read_on(np.zeros((1, length), np.int64))


def draw(
    logits: np.ndarray,
    temperature: float,
    top_k: int | None,
    rng: np.random.Generator,
    top_p: float | None = None,
) -> np.ndarray:
    """Draw one token per row, logits (B, V) -> (B,); raise ValueError if a logit is +inf or NaN."""
    if not (logits < np.inf).all():
        raise ValueError("the model's logits are not finite; its weights are damaged or too large")
    if temperature == 0:
        return logits.argmax(axis=-1)  # (B,)
    cumulative = weights(logits, temperature, top_k, top_p).cumsum(axis=-1)  # (B, V)
    # The weights are not normalized; the random number is scaled by their sum instead.
    threshold = rng.random((len(logits), 1)) * cumulative[:, -1:]  # (B, 1)
    return (cumulative <= threshold).sum(axis=-1)  # (B,)


def weights(
    logits: np.ndarray, temperature: float, top_k: int | None, top_p: float | None
) -> np.ndarray:
    """Return numbers proportional to the probabilities of drawing each token, (B, V) -> (B, V)."""
    distance = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)  # (B, V)
    with np.errstate(over="ignore"):  # Near temperature 0, less likely tokens get -inf.
        scaled = distance / temperature  # (B, V)
    if top_k is not None and top_k < scaled.shape[-1]:
        smallest = np.partition(scaled, -top_k, axis=-1)[:, -top_k, None]  # (B, 1)
        scaled = np.where(scaled < smallest, -np.inf, scaled)  # (B, V)
    if top_p is not None and top_p < 1:
        scaled = np.where(scaled < nucleus_edge(scaled, top_p), -np.inf, scaled)  # (B, V)
    return np.exp(scaled)  # (B, V)


def nucleus_edge(scaled: np.ndarray, top_p: float) -> np.ndarray:
    """Return the lowest scaled logit that top_p keeps in each row, (B, V) -> (B, 1)."""
    descending = np.sort(scaled, axis=-1)[:, ::-1]  # (B, V)
    cumulative = np.exp(descending).cumsum(axis=-1)  # (B, V)
    enough = cumulative >= top_p * cumulative[:, -1:]  # (B, V)
    last = enough.argmax(axis=-1)[:, None]  # (B, 1)
    return np.take_along_axis(descending, last, axis=-1)  # (B, 1)


def check_rules(
    tokens: np.ndarray,
    max_new_tokens: int | None,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
) -> None:
    """Raise ValueError for a prompt or a rule that cannot be used."""
    shape = tokens.shape
    rules = (
        (tokens.ndim in (1, 2) and tokens.size, "tokens", "(T,) or (B, T) with B and T ≥ 1", shape),
        ((max_new_tokens or 0) >= 0, "max_new_tokens", "zero or more", max_new_tokens),
        (0 <= temperature < np.inf, "temperature", "finite and zero or more", temperature),
        (top_k is None or top_k >= 1, "top_k", "1 or more", top_k),
        (top_p is None or 0 < top_p <= 1, "top_p", "above 0 and at most 1", top_p),
    )
    for fits, name, expected, given in rules:
        if not fits:
            raise ValueError(f"{name} must be {expected}, not {given}")
