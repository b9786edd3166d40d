"""The limits of the machine, in every case and in a table of their own.

Those of the table are measured in rounds at the start of a run and between its cases. The arrays
of a bandwidth fill half of a cache, or four times the last one for memory. The last cache
is shared, on a virtual machine also with others, so that the part of a process is not known. So
several sizes are measured, of which the fastest counts, if it is faster than memory.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.harness.analysis import estimate, medians, undisturbed
from benchmarks.harness.process import Process
from benchmarks.harness.rounds import Candidate, Comparison, Say

MEMORY = "memory"
# Seconds within which a turn must end.
TIMEOUT = 60.0
# The parts of the last cache that are tried, and how much faster than memory a cache must be.
PARTS, FASTER = (2, 4, 8), 1.25


class MachineLimits:
    """The peak, the bandwidth of each cache and of memory, and a matmul by BLAS, by threads."""

    def __init__(
        self, process: Process, caches: dict[str, int], threads: Sequence[int], cold: bool
    ) -> None:
        self.comparison = Comparison({})
        for count in threads:
            for name, where, size in limits_of(caches, count, cold):
                open_limit(process, self.comparison, name, count, size, where=where)

    def measure(self, rounds: int, say: Say) -> list[dict[str, Any]]:
        """Take further rounds, and return the limits with their rates in all rounds so far."""
        self.comparison.take_rounds(rounds, say)
        limits: list[dict[str, Any]] = []
        for limit in self.comparison.record["limits"]:
            rates = [limit["amount"] / seconds for seconds in medians(undisturbed(limit))]
            limits.append({**limit, "rate": estimate(rates)})
        return list(distinct(limits))

    def close(self) -> None:
        """End the processes."""
        self.comparison.close()


def open_limit(
    process: Process, comparison: Comparison, name: str, threads: int, size: int, **more: Any
) -> None:
    """Open a limit of the machine, to be measured in the rounds of a comparison."""
    about = {"name": name, **more, "threads": threads, "size": size}
    limit = Candidate(process.fork(name), about, timeout=TIMEOUT)
    comparison.limits.append(limit)
    limit.open(name=name, threads=threads, size=size)


def limits_of(
    caches: dict[str, int], threads: int, cold: bool
) -> Iterator[tuple[str, str | None, int]]:
    """Yield the name of each limit, the cache that it is of, and the bytes of its arrays.

    cold: whether nothing is in the caches when a step begins.
    """
    *own, (last, size) = caches.items()  # All except the last are private to a thread.
    yield "peak", None, 0
    if not cold:
        for where, capacity in own:
            yield "triad", where, capacity // 2 * threads
        private = own[-1][1] * threads if own else 0
        for part in PARTS:
            if size // part >= 2 * private:
                yield "triad", last, size // part
    yield "triad", MEMORY, 4 * size
    yield "BLAS", None, 0


def distinct(limits: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the limits, of each cache the fastest size and only if memory is not as fast."""
    sizes: dict[tuple[str, str | None, int], list[dict[str, Any]]] = {}
    for limit in limits:
        sizes.setdefault((limit["name"], limit["where"], limit["threads"]), []).append(limit)
    for (name, where, threads), same in sizes.items():
        fastest = max(same, key=lambda limit: limit["rate"].median)
        if where not in (None, MEMORY):
            (memory,) = sizes[name, MEMORY, threads]
            if fastest["rate"].median < FASTER * memory["rate"].median:
                continue
        yield fastest
