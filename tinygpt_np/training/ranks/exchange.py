"""The messages of a step: partial sums of gradients to their owners, and new weights to all.

Messages are non-blocking. A rank sends a bucket as soon as its last batch has completed it, while
earlier layers are still being computed. MPI libraries move most data while they are called, so the
threads that compute make progress on all messages each time a gradient is complete.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinygpt_np.storage.parameters import Tensors
from tinygpt_np.training.ranks.group import Group
from tinygpt_np.training.ranks.order import PartialSums, Plan
from tinygpt_np.training.ranks.shards import Shards

# Buckets of its own that a rank receives at a time; each needs memory for all their partial sums.
WINDOW = 8
# Seconds of looking for messages without a pause, and then of a pause between two looks.
IMPATIENT, PAUSE = 2e-3, 50e-6


@dataclass
class Incoming:
    """Partial sums of a bucket that are being received, in the order of the sum."""

    bucket: int
    arrays: list[np.ndarray]
    requests: list[Any] = field(default_factory=list[Any])


class Exchange:
    """The sums of gradients over ranks.

    Parameters
    ----------
    group
        The ranks.
    shards
        The buckets and their owners.
    plans
        The plan of each rank, in order; see order.py.
    batches
        The number of batches of a step.
    reduction
        "exact" adds in the order of order.py; "fast" lets MPI choose the order.
    """

    def __init__(
        self, group: Group, shards: Shards, plans: list[Plan], batches: int, reduction: str
    ) -> None:
        self.group, self.shards, self.reduction = group, shards, reduction
        self.sources = [rank for rank, plan in enumerate(plans) for _ in plan.ranges]
        sums = PartialSums(batches)
        ranges = [batches for plan in plans for batches in plan.ranges]
        self.additions = [
            pair for array, batches in enumerate(ranges) for pair in sums.push(batches, array)
        ]
        self.own = [n for n, bucket in enumerate(shards.buckets) if bucket.owner == group.rank]
        self.lock = threading.Lock()

    def start(self, flats: list[np.ndarray]) -> None:
        """Begin a step. flats: the arrays that will hold this rank's partial sums.

        The first of them will also hold the sums over all ranks, in the buckets of this rank.
        """
        self.flats = flats
        self.ready = deque[int]()
        self.complete = [False] * len(self.shards.buckets)
        self.unposted, self.incoming = deque(self.own), list[Incoming]()
        self.outgoing: list[Any] = []
        self.next = 0

    def send(self, bucket: int) -> None:
        """Send the partial sums of a bucket, which are complete, to its owner; from any thread."""
        if self.group.size == 1:
            return
        self.ready.append(bucket)
        self.progress()

    def progress(self) -> None:
        """Start what can be started, and add what has arrived, unless another thread does."""
        if self.lock.acquire(blocking=False):
            try:
                if self.reduction == "fast":
                    self.reduce()
                else:
                    self.deliver()
                    self.receive()
            finally:
                self.lock.release()

    def part(self, flat: np.ndarray, bucket: int) -> np.ndarray:
        """Return the part of a flat array that belongs to a bucket."""
        return flat[self.shards.buckets[bucket].start : self.shards.buckets[bucket].stop]

    def deliver(self) -> None:
        """Start to send the buckets that are ready; note those that stay here."""
        while self.ready:
            bucket = self.ready.popleft()
            owner = self.shards.buckets[bucket].owner
            if owner == self.group.rank:
                self.complete[bucket] = True
                continue
            for flat in self.flats:
                part = self.part(flat, bucket)
                self.outgoing.append(self.group.world.Isend(part, owner, bucket))
        self.group.finished(self.outgoing)

    def receive(self) -> None:
        """Post receives, and add the partial sums of buckets that are complete."""
        while self.unposted and len(self.incoming) < WINDOW:
            self.post(self.unposted.popleft())
        for each in list(self.incoming):
            if self.complete[each.bucket] and self.group.finished(each.requests):
                self.incoming.remove(each)
                for left, right in self.additions:
                    each.arrays[left] += each.arrays[right]
                if self.sources[0] != self.group.rank:  # Else the sum is where it belongs.
                    self.part(self.flats[0], each.bucket)[...] = each.arrays[0]

    def post(self, bucket: int) -> None:
        """Start to receive the partial sums of a bucket of this rank from all others."""
        found, here = Incoming(bucket, []), iter(self.flats)
        size = self.shards.buckets[bucket].stop - self.shards.buckets[bucket].start
        for source in self.sources:
            if source == self.group.rank:
                found.arrays.append(self.part(next(here), bucket))
                continue
            found.arrays.append(np.empty(size, self.flats[0].dtype))
            found.requests.append(self.group.world.Irecv(found.arrays[-1], source, bucket))
        self.incoming.append(found)

    def reduce(self) -> None:
        """Add this rank's partial sums, and start MPI's reductions, in the order of the buckets."""
        while self.ready:
            self.complete[self.ready.popleft()] = True
        while self.next < len(self.complete) and self.complete[self.next]:
            first, *others = (self.part(flat, self.next) for flat in self.flats)
            for other in others:
                first += other
            self.outgoing.append(self.group.reduce(first, self.shards.buckets[self.next].owner))
            self.next += 1
        self.group.finished(self.outgoing)

    def finish(self) -> None:
        """Wait until all sums of this rank are complete and all its messages are sent."""
        if self.group.size == 1:
            return

        def finished() -> bool:
            self.progress()
            waits = self.ready or self.waits()
            return not waits and self.group.finished(self.outgoing)

        wait(finished)

    def waits(self) -> bool:
        """Return whether a bucket of this rank is not complete yet."""
        if self.reduction == "fast":
            return self.next < len(self.complete)
        return bool(self.unposted or self.incoming)

    def send_weights(self, flat: np.ndarray) -> None:
        """Send the buckets of this rank in a flat array to all, and receive the others."""
        requests = [
            self.group.world.Ibcast(self.part(flat, number), bucket.owner)
            for number, bucket in enumerate(self.shards.buckets)
        ]
        wait(lambda: self.group.finished(requests))

    def collect(self, own: Tensors, names: Collection[str]) -> Tensors:
        """Return whole tensors from the pieces of all ranks, on rank 0; on others, nothing."""
        found: Tensors = {}
        for number, bucket in enumerate(self.shards.buckets):
            for piece in bucket.pieces:
                if piece.tensor not in names:
                    continue
                if self.group.rank == 0:
                    shape, dtype = self.shards.layout.shapes[piece.tensor], self.shards.layout.dtype
                    whole = found.setdefault(piece.tensor, np.empty(shape, dtype))
                    if bucket.owner == 0:
                        whole[piece.rows] = own[piece.name]
                    else:
                        self.group.world.Recv(whole[piece.rows], bucket.owner, number)
                elif bucket.owner == self.group.rank:
                    self.group.world.Send(own[piece.name], 0, number)
        return {name: found[name] for name in names if name in found}


def wait(finished: Callable[[], bool]) -> None:
    """Wait for messages; another process may use the core."""
    start = time.perf_counter()
    while not finished():
        if time.perf_counter() - start < IMPATIENT:
            os.sched_yield()
        else:
            time.sleep(PAUSE)
