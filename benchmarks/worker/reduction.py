"""Time the sum of gradients over ranks by size, under mpirun; rank 0 prints a line per size.

    mpirun -n 2 python -m benchmarks.worker.reduction 4096 16384

MPI_Allreduce, and the exchange of training: each part of the gradients is sent to the rank that
owns it, which adds what it receives in the order of the ranks and sends the sum to all. A time is
that of the slowest rank, from a barrier on.
"""

import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

# Bytes of a message of the exchange.
BUCKET = 1 << 20
# Samples of a size: as many as fill the seconds.
SECONDS, FEWEST, MOST = 0.3, 5, 200


class Exchange:
    """The exchange of gradients by direct messages to their owners, and of the sums."""

    def __init__(self, comm: Any, mpi: Any, gradients: np.ndarray) -> None:
        self.comm, self.mpi, self.gradients = comm, mpi, gradients
        rank, ranks = comm.rank, comm.size
        bucket = min(BUCKET // 4, -(-gradients.size // ranks))
        cuts = range(0, gradients.size, bucket)
        self.parts = [slice(start, start + bucket) for start in cuts]
        self.total = np.empty_like(gradients)
        self.others = [other for other in range(ranks) if other != rank]
        mine = [part for number, part in enumerate(self.parts) if number % ranks == rank]
        # For each part that this rank owns, a buffer for each rank.
        self.received = {
            part.start: [np.empty_like(gradients[part]) for _ in range(ranks)] for part in mine
        }

    def __call__(self) -> np.ndarray:
        """Return the sum of the gradients of all ranks."""
        comm, rank, requests = self.comm, self.comm.rank, list[Any]()
        for number, part in enumerate(self.parts):
            owner = number % comm.size
            if owner == rank:
                for other in self.others:
                    requests.append(comm.Irecv(self.received[part.start][other], other, number))
            else:
                requests.append(comm.Isend(self.gradients[part], owner, number))
        self.mpi.Request.Waitall(requests)
        requests.clear()
        for number, part in enumerate(self.parts):
            if (owner := number % comm.size) == rank:
                total, buffers = self.total[part], self.received[part.start]
                buffers[rank] = self.gradients[part]
                np.copyto(total, buffers[0])
                for buffer in buffers[1:]:
                    total += buffer
                requests += (comm.Isend(total, other, number) for other in self.others)
            else:
                requests.append(comm.Irecv(self.total[part], owner, number))
        self.mpi.Request.Waitall(requests)
        return self.total


def median_time(comm: Any, mpi: Any, work: Callable[[], Any]) -> float:
    """Return the median over samples of the time of the slowest rank."""

    def sample() -> float:
        comm.Barrier()
        began = time.perf_counter()
        work()
        return comm.allreduce(time.perf_counter() - began, mpi.MAX)

    sample()
    count = int(SECONDS / sample())  # The same on all ranks.
    return statistics.median(sample() for _ in range(min(max(count, FEWEST), MOST)))


def main(sizes: list[int]) -> None:
    """Time all sizes, in bytes."""
    mpi: Any = importlib.import_module("mpi4py.MPI")
    comm = mpi.COMM_WORLD
    for size in sizes:
        gradients = np.full(size // 4, comm.rank + 1, np.float32)
        total = np.empty_like(gradients)
        exchange = Exchange(comm, mpi, gradients)
        expected = comm.size * (comm.size + 1) / 2
        row: dict[str, Any] = {"ranks": comm.size, "size": size}
        allreduce = partial(comm.Allreduce, gradients, total)
        row["allreduce"] = median_time(comm, mpi, allreduce)
        row["exchange"] = median_time(comm, mpi, exchange)
        if not ((total == expected).all() and (exchange.total == expected).all()):
            raise ArithmeticError(f"the sums of {size} bytes are wrong")
        if comm.rank == 0:
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]])
