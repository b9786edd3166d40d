"""Time the sum of gradients over ranks by size, under mpirun; rank 0 prints a line per size.

    mpirun -n 2 python -m benchmarks.worker.reduction 4096 16384

MPI_Allreduce, and the exchange of training: gradients to the owners of their parts, who add them,
and the sums to all, as the new weights are sent. A time is that of the slowest rank, from a barrier
on.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tinygpt_np.training.ranks import order
from tinygpt_np.training.ranks.exchange import Exchange
from tinygpt_np.training.ranks.group import Group, mpi
from tinygpt_np.training.ranks.shards import Layout, Shards

# Numbers in a row of the tensors that are exchanged.
COLUMNS = 64
# Samples of a size: as many as fill the seconds.
SECONDS, FEWEST, MOST = 0.3, 5, 200


class Whole:
    """The exchange of training for a tensor per rank; each rank has one partial sum of all."""

    def __init__(self, group: Group, size: int) -> None:
        rows = size // group.size // 4 // COLUMNS
        names = ["wte.weight", *map(str, range(1, group.size))]  # That one must be there.
        layout = Layout({name: np.empty((rows, COLUMNS), np.float32) for name in names})
        self.shards = Shards(layout, group.size, group.rank)
        batches = group.size
        own = [order.share(batches, group.size, rank) for rank in range(group.size)]
        plans = [order.plan(batches, each, 1) for each in own]
        self.exchange = Exchange(group, self.shards, plans, batches, "exact")
        self.flat = layout.zeros()

    def __call__(self) -> None:
        """Replace the numbers in `flat` by their sums over all ranks."""
        self.exchange.start([self.flat])
        for bucket in range(len(self.shards.buckets)):
            self.exchange.send(bucket)
        self.exchange.finish()
        self.exchange.send_weights(self.flat)


def median_time(comm: Any, library: Any, work: Callable[[], Any]) -> float:
    """Return the median over samples of the time of the slowest rank."""

    def sample() -> float:
        comm.Barrier()
        began = time.perf_counter()
        work()
        return comm.allreduce(time.perf_counter() - began, library.MAX)

    sample()
    count = int(SECONDS / sample())  # The same on all ranks.
    return statistics.median(sample() for _ in range(min(max(count, FEWEST), MOST)))


def main(sizes: list[int]) -> None:
    """Time all sizes, in bytes."""
    library = mpi()
    comm = library.COMM_WORLD
    group = Group(comm)
    for size in sizes:
        whole = Whole(group, size)
        total = np.empty_like(whole.flat)
        row: dict[str, Any] = {"ranks": group.size, "size": size}
        row["allreduce"] = median_time(comm, library, partial(comm.Allreduce, whole.flat, total))
        row["exchange"] = median_time(comm, library, whole)
        if group.rank == 0:
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]])
