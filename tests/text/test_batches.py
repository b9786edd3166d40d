"""Batches: random sequences, each once in an epoch, and a whole split."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt_np.config import TrainConfig
from tinygpt_np.text import batches
from tinygpt_np.text.batches import Epochs

steady = settings(deadline=None, derandomize=True)


@steady
@given(st.integers(1, 9), st.integers(1, 9))
def test_random_sequences_start_anywhere_and_targets_follow(block: int, starts: int) -> None:
    ids = np.arange(block + starts)
    # The chance that a start is never drawn is (8/9)^1000 at most.
    tokens, targets = batches.random_batch(ids, 1000, block, np.random.default_rng(0))
    assert set(tokens[:, 0].tolist()) == set(range(starts))
    np.testing.assert_array_equal(tokens, tokens[:, :1] + np.arange(block))
    np.testing.assert_array_equal(targets, tokens + 1)


@steady
@given(st.integers(2, 9000), st.integers(1, 3000))
def test_sequences_predict_each_token_after_the_first_once(length: int, block: int) -> None:
    parts = list(batches.sequences(np.arange(length, dtype=np.uint16), block))
    targets = np.concatenate([batch.ravel() for _, batch in parts])
    np.testing.assert_array_equal(targets, np.arange(1, length))
    for tokens, following in parts:
        assert tokens.dtype == following.dtype == np.int64
        assert tokens.size <= max(batches.EVAL_TOKENS, block)
        np.testing.assert_array_equal(tokens + 1, following)
    widths = [tokens.shape[1] for tokens, _ in parts]
    assert set(widths[:-1]) <= {block}
    assert widths[-1] in {block, (length - 1) % block}


# Epochs


def epochs_of(length: int, block: int, batch: int = 1, seed: int = 1) -> Epochs:
    """Return the epochs of a split in which each token is its place."""
    config = TrainConfig(data_order="epochs", block_size=block, batch_size=batch, seed=seed)
    return Epochs(np.arange(length, dtype=np.uint16), config)


@steady
@given(st.integers(1, 9), st.integers(1, 120), st.integers(1, 5))
def test_each_sequence_is_used_once_in_each_epoch(block: int, more: int, batch: int) -> None:
    epochs = epochs_of(block + more, block, batch)
    starts = [epochs.starts_of_step(step) for step in range(3 * epochs.count)]
    drawn = [batches.cut(epochs.ids, each, block) for each in starts]
    tokens, targets = (np.concatenate(part) for part in zip(*drawn, strict=True))
    assert tokens.dtype == targets.dtype == np.int64
    np.testing.assert_array_equal(tokens, tokens[:, :1] + np.arange(block))
    np.testing.assert_array_equal(targets, tokens + 1)
    for first in range(0, 2 * epochs.count, epochs.count):
        starts = np.sort(tokens[first : first + epochs.count, 0])
        np.testing.assert_array_equal(np.diff(starts), block)
        assert len(starts) >= max(1, (block + more - 1) // block - 1)


def test_epochs_differ_in_their_order_and_where_they_cut_and_depend_on_the_seed() -> None:
    def starts(seed: int) -> list[list[int]]:
        epochs = epochs_of(900, 7, 1, seed)
        numbers = range(4 * epochs.count)
        found = [int(epochs.starts_of_step(number)[0]) for number in numbers]
        return [found[first : first + epochs.count] for first in numbers[:: epochs.count]]

    first = starts(1)
    assert first == starts(1)
    assert first != starts(2)
    assert len({min(epoch) for epoch in first}) > 1
    assert len({tuple(start - min(epoch) for start in epoch) for epoch in first}) == 4


def test_an_epoch_may_begin_at_each_place_of_a_sequence() -> None:
    found = {int(epochs_of(23, 5, seed=seed).starts(0).min()) for seed in range(200)}
    assert found == set(range(5))
