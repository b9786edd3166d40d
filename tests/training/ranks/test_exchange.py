"""Owners get the sums in the fixed order whatever the messages do, and all get the weights."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.small_gpts import generic
from helpers.thread_ranks import on_ranks

import tinygpt_np as tg
from tinygpt_np.storage import parameters
from tinygpt_np.training.ranks import exchange, order
from tinygpt_np.training.ranks.exchange import Exchange
from tinygpt_np.training.ranks.group import Group
from tinygpt_np.training.ranks.shards import Layout, Shards

BATCHES = 12
MODEL = tg.GPT(tg.GPTConfig(vocab_size=37, block_size=5, n_layer=2, n_head=2, n_embd=10, bias=True))
RNG = np.random.default_rng(3)
LAYOUT = Layout(MODEL.params)
GRADS = RNG.standard_normal((BATCHES, LAYOUT.size)).astype(np.float32)
ranks_and_seeds = pytest.mark.parametrize(
    ("ranks", "seed"), [(2, 1), (3, 2), (4, 3), (6, 4), (12, 5)]
)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameters, "BLOCK", 90)
    monkeypatch.setattr(exchange, "WINDOW", 2)


def total_of(group: Group, reduction: str) -> np.ndarray:
    """Return the sums in this rank's buckets, and NaN elsewhere, after two steps."""
    shards = Shards(LAYOUT, group.size, group.rank)
    own = [order.share(BATCHES, group.size, rank) for rank in range(group.size)]
    plans = [order.plan(BATCHES, each, 1) for each in own]
    messages = Exchange(group, shards, plans, BATCHES, reduction)
    found = np.full(LAYOUT.size, np.nan, np.float32)
    for sign in (-1, 1):
        ranges = plans[group.rank].ranges
        flats = [np.full(LAYOUT.size, np.nan, np.float32) for _ in ranges]
        messages.start(flats)
        numbers = range(len(shards.buckets))
        for number in random.Random(group.rank).sample(numbers, len(numbers)):
            part = slice(shards.buckets[number].start, shards.buckets[number].stop)
            for flat, batches in zip(flats, ranges, strict=True):
                flat[part] = sign * added(batches)[part]
            messages.send(number)
        messages.finish()
        for bucket in shards.buckets:
            if bucket.owner == group.rank:
                found[bucket.start : bucket.stop] = flats[0][bucket.start : bucket.stop]
        for flat in flats:
            flat.fill(np.nan)  # All messages have been sent.
    return found


def added(batches: order.Range) -> np.ndarray:
    """Return the sum of some batches in the fixed order."""
    first, last = batches
    found = next((b for a, b, c in sorted(order.additions((0, BATCHES))) if (a, c) == batches), 0)
    if last - first == 1:
        return GRADS[first]
    return added((first, found)) + added((found, last))


@ranks_and_seeds
def test_the_sums_have_the_bits_of_one_process(ranks: int, seed: int) -> None:
    parts = on_ranks(ranks, lambda group: total_of(group, "exact"), seed)
    known = np.isfinite(parts)
    assert (known.sum(axis=0) <= 1).all()
    total = np.where(known, parts, 0).sum(axis=0)
    places = known.any(axis=0)
    np.testing.assert_array_equal(total[places], added((0, BATCHES))[places])


@pytest.mark.parametrize("ranks", [3, 4])
def test_fast_sums_are_those_of_another_order(ranks: int) -> None:
    parts = on_ranks(ranks, lambda group: total_of(group, "fast"))
    total = np.nansum(parts, axis=0)
    places = np.isfinite(parts).any(axis=0)
    np.testing.assert_allclose(total[places], GRADS.sum(axis=0)[places], atol=1e-5)
    assert (total[places] != added((0, BATCHES))[places]).any()


@pytest.mark.parametrize("ranks", [2, 5])
def test_all_ranks_get_the_weights_of_each_owner_and_the_first_gets_all_averages(
    ranks: int,
) -> None:
    expected, _, _ = generic(replace(MODEL.config))

    def send(group: Group) -> tuple[Any, Any]:
        shards = Shards(LAYOUT, group.size, group.rank)
        messages = Exchange(group, shards, [order.plan(1, range(1), 1)] * ranks, ranks, "exact")
        flat = np.zeros(LAYOUT.size, np.float32)
        own = shards.own(expected.params)
        for name, piece in shards.own(LAYOUT.views(flat)).items():
            piece[...] = own[name]
        messages.send_weights(flat)
        names = [name for name in expected.params if name != "wpe.weight"]
        return LAYOUT.views(flat), messages.collect(own, names)

    results = on_ranks(ranks, send)
    for views, _ in results:
        for name, param in expected.params.items():
            np.testing.assert_array_equal(views[name], param)
    assert list(results[0][1]) == [name for name in expected.params if name != "wpe.weight"]
    for name, tensor in results[0][1].items():
        np.testing.assert_array_equal(tensor, expected.params[name])
    assert all(collected == {} for _, collected in results[1:])
