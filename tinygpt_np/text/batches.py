"""Batches of tokens and targets: sequences of a split at random, in epochs, or all in order."""

import functools
from collections.abc import Iterator

import numpy as np

from tinygpt_np.config import TrainConfig, generator

# Tokens per forward pass of an evaluation. Independent of the batch size, so that the validation
# loss is too, to the last bit; small, to save memory.
EVAL_TOKENS = 2048


def random_batch(
    ids: np.ndarray, batch_size: int, block_size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw random sequences: tokens (B, T) int64 and the targets, which are one token later."""
    return cut(ids, random_starts(ids, batch_size, block_size, rng), block_size)


def random_starts(
    ids: np.ndarray, count: int, block_size: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw the starts of random sequences, (count,)."""
    return rng.integers(len(ids) - block_size, size=count)


def sequences(ids: np.ndarray, block_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield all of a split in order, in batches of tokens and targets (B, T) int64.

    The sequences do not overlap, and every token but the first is a target once. The last sequence
    may be shorter.
    """
    count = len(ids) - 1
    full = count // block_size * block_size
    per_batch = max(EVAL_TOKENS // block_size, 1) * block_size
    for start in range(0, full, per_batch):
        part = ids[start : min(start + per_batch, full) + 1].astype(np.int64)
        yield part[:-1].reshape(-1, block_size), part[1:].reshape(-1, block_size)
    if full < count:
        part = ids[full:].astype(np.int64)
        yield part[None, :-1], part[None, 1:]


class Epochs:
    """The sequences of a training split, each used once before any is used again, in random order.

    In each epoch the split is cut at other places. A batch depends only on the seed and the number
    of its step.
    """

    def __init__(self, ids: np.ndarray, config: TrainConfig) -> None:
        """Take the tokens of a split (M,), at least block_size + 1."""
        self.ids, self.config = ids, config
        # One less than fit, so that an epoch may begin at any of block_size places.
        self.count = max(1, len(ids) // config.block_size - 1)
        self.starts = functools.lru_cache(maxsize=2)(self.starts_of)

    def starts_of(self, epoch: int) -> np.ndarray:
        """Return the starts of the sequences of an epoch, (count,), in the order of their use."""
        rng, T = generator(self.config.seed, "data", epoch + 1), self.config.block_size
        first = rng.integers(min(T, len(self.ids) - self.count * T))
        return rng.permutation(first + T * np.arange(self.count))  # (count,)

    def starts_of_step(self, step: int) -> np.ndarray:
        """Return the starts of the sequences of a step, (B,)."""
        B = self.config.sequences_per_step
        places = (divmod(number, self.count) for number in range(step * B, (step + 1) * B))
        return np.array([self.starts(epoch)[place] for epoch, place in places])


def cut(ids: np.ndarray, starts: np.ndarray, block_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the sequences that begin at starts (B,), (B, T) int64, and their targets."""
    positions = starts[:, None] + np.arange(block_size)  # (B, T)
    return ids[positions].astype(np.int64), ids[positions + 1].astype(np.int64)
