"""The gradient of a step: the sum over its batches, in the same order on any number of ranks."""

import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygpt_np.config import TrainConfig
from tinygpt_np.storage.parameters import Tensors
from tinygpt_np.training.engine import Engine
from tinygpt_np.training.ranks import order
from tinygpt_np.training.ranks.exchange import Exchange
from tinygpt_np.training.ranks.group import Group
from tinygpt_np.training.ranks.order import Round
from tinygpt_np.training.ranks.shards import Shards


class GradientSum:
    """The gradients of this rank's batches, added to those of the other ranks."""

    def __init__(self, engine: Engine, config: TrainConfig, group: Group, shards: Shards) -> None:
        self.engine, self.config, self.group, self.shards = engine, config, group, shards
        batches = config.gradient_accumulation_steps
        own = [order.share(batches, group.size, rank) for rank in range(group.size)]
        at_once = engine.at_once(len(own[group.rank]))
        plans = [order.plan(batches, each, at_once) for each in own]
        self.own, self.plan = own[group.rank], plans[group.rank]
        # A gradient of all parameters for each array of the plan.
        self.flats = [shards.layout.zeros() for _ in range(self.plan.count)]
        self.grads = [shards.layout.views(flat) for flat in self.flats]
        # A rank that is alone with one batch has nothing to add or to send.
        self.adds = group.size > 1 or any(any(each.additions) for each in self.plan.rounds)
        self.result = shards.own(self.grads[0])
        self.exchange = Exchange(group, shards, plans, batches, config.reduction)
        self.buckets: dict[str, list[int]] = {}
        for number, bucket in enumerate(shards.buckets):
            for name in dict.fromkeys(piece.tensor for piece in bucket.pieces):
                self.buckets.setdefault(name, []).append(number)
        self.lock = threading.Lock()

    def run(
        self, batch: Callable[[int], tuple[np.ndarray, np.ndarray]], dropout: Any
    ) -> tuple[list[float], Tensors]:
        """Return parts of the loss, and the gradients of the pieces that this rank owns.

        batch(number) returns the tokens and targets (B, T) of a batch of the step; dropout is the
        result of the engine's `draw`. The next call overwrites the gradients.
        """
        self.engine.prepare()
        self.exchange.start([self.flats[array] for array in self.plan.arrays])
        losses: list[float] = []
        for number, each in enumerate(self.plan.rounds):
            is_last = number == len(self.plan.rounds) - 1
            # The gradients, of all batches of the round, that a bucket waits for.
            self.missing = [
                len({piece.tensor for piece in bucket.pieces}) * len(each.batches)
                for bucket in self.shards.buckets
            ]
            losses += self.engine.accumulate(
                [batch(number) for number in each.batches],
                [self.grads[array] for array in each.arrays],
                self.config.tokens_per_step,
                dropout,
                each.batches.start * self.config.batch_size,
                functools.partial(self.complete, each, is_last) if self.adds else None,
            )
        self.exchange.finish()
        return losses, self.result

    def complete(self, each: Round, is_last: bool, name: str) -> None:
        """Add and send the buckets that are complete with the gradient of `name` for a batch."""
        with self.lock:
            for number in self.buckets[name]:
                self.missing[number] -= 1
            ready = [number for number in self.buckets[name] if self.missing[number] == 0]
        for number in ready:
            part = slice(self.shards.buckets[number].start, self.shards.buckets[number].stop)
            for additions in each.additions:
                for left, right in additions:
                    self.flats[left][part] += self.flats[right][part]
            if is_last:
                self.exchange.send(number)
