"""Ranks that are threads of one process, with the messages of MPI: no MPI is needed.

A message arrives when its receiver has looked for it several times, which differ from message to
message, so messages overtake each other.
"""

import json
import random
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from tinygpt_np.training.ranks.group import Group, installed

Result = TypeVar("Result")


@dataclass
class Message:
    """An array that is on its way. It is copied when it is received, and must not change before."""

    array: np.ndarray
    received: bool = False


class Network:
    """The messages and values that the threads exchange."""

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size, self.rng = size, random.Random(seed)
        # By sender, receiver and tag, in the order in which they are sent.
        self.messages: dict[Any, list[Message]] = defaultdict(list)
        self.barrier = threading.Barrier(size, timeout=60)
        self.values: list[str] = [""] * size


class Request:
    """A message that is complete when `attempt` has returned True."""

    def __init__(self, attempt: Callable[[], bool], looks: int) -> None:
        self.attempt, self.looks, self.complete = attempt, looks, False

    def test(self) -> bool:
        """Look for the message."""
        self.looks -= 1
        self.complete = self.complete or (self.looks < 0 and self.attempt())
        return self.complete


def looked_for(requests: list[Request]) -> bool:
    """Look for all of some messages, and return whether all have arrived."""
    return min((each.test() for each in requests), default=True)


class World:
    """The communicator of one rank, with the methods of mpi4py that are used."""

    def __init__(self, network: Network, rank: int) -> None:
        self.network, self.rank = network, rank
        self.received: dict[Any, int] = defaultdict(int)
        self.broadcasts = 0

    def request(self, attempt: Callable[[], bool]) -> Request:
        """Return a request that is complete after a few looks."""
        return Request(attempt, self.network.rng.randrange(4))

    def Isend(self, array: np.ndarray, target: int, tag: Any) -> Request:  # noqa: N802
        """Start to send an array."""
        message = Message(array)
        self.network.messages[self.rank, target, tag].append(message)
        return self.request(lambda: message.received)

    def Irecv(self, array: np.ndarray, source: int, tag: Any) -> Request:  # noqa: N802
        """Start to receive an array, the next one with this tag."""
        key = source, self.rank, tag
        number, self.received[key] = self.received[key], self.received[key] + 1

        def attempt() -> bool:
            found = self.network.messages[key]
            if len(found) <= number:
                return False
            array[...] = found[number].array
            found[number].received = True
            return True

        return self.request(attempt)

    def Ibcast(self, array: np.ndarray, root: int) -> Request:  # noqa: N802
        """Start to send an array from one rank to all."""
        self.broadcasts += 1
        tag = f"broadcast {self.broadcasts}"
        if self.rank != root:
            return self.Irecv(array, root, tag)
        others = [rank for rank in range(self.network.size) if rank != root]
        sent = [self.Isend(array, rank, tag) for rank in others]
        return self.request(lambda: looked_for(sent))

    def Send(self, array: np.ndarray, target: int, tag: Any) -> None:  # noqa: N802
        """Send an array."""
        self.Isend(array.copy(), target, tag)

    def Recv(self, array: np.ndarray, source: int, tag: Any) -> None:  # noqa: N802
        """Receive an array."""
        request = self.Irecv(array, source, tag)
        while not request.test():
            pass


class ThreadGroup(Group):
    """The ranks, as one of them sees them."""

    def __init__(self, network: Network, rank: int) -> None:
        self.world: Any = World(network, rank)
        self.rank, self.size, self.network = rank, network.size, network
        self.host, self.hosts = "here", ["here"] * network.size
        self.machines, self.divided = [0] * network.size, 1

    def share(self, value: Any) -> list[Any]:
        """Return the values of all ranks."""
        if self.size == 1:
            return [value]
        self.network.values[self.rank] = json.dumps(value)
        self.network.barrier.wait()
        found = [json.loads(each) for each in self.network.values]
        self.network.barrier.wait()
        return found

    def finished(self, requests: list[Any]) -> bool:
        """Return whether all messages have arrived."""
        return looked_for(requests)

    def reduce(self, array: np.ndarray, owner: int) -> Any:
        """Start to add an array over all ranks, from the last rank to the first."""
        self.world.broadcasts += 1
        tag = f"sum {self.world.broadcasts}"
        if self.rank != owner:
            return self.world.Isend(array, owner, tag)
        parts = [np.empty_like(array) for _ in range(self.size - 1)]
        others = [rank for rank in reversed(range(self.size)) if rank != owner]
        received = [self.world.Irecv(*each, tag) for each in zip(parts, others, strict=True)]

        def attempt() -> bool:
            if not looked_for(received):
                return False
            for part in parts:
                array[...] += part
            return True

        return self.world.request(attempt)


def on_ranks(size: int, function: Callable[[Group], Result], seed: int = 0) -> list[Result]:
    """Return what function(group) returns on each of several ranks, which run at the same time."""
    network = Network(size, seed)
    # If one thread loads a library while another lists all of them, both may wait forever.
    installed()

    def call(rank: int) -> Result:
        try:
            return function(ThreadGroup(network, rank))
        except BaseException:
            network.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        tasks = [pool.submit(call, rank) for rank in range(size)]
    errors = [error for task in tasks if (error := task.exception()) is not None]
    causes = (error for error in errors if not isinstance(error, threading.BrokenBarrierError))
    if errors:
        raise next(causes, errors[0])
    return [task.result() for task in tasks]
