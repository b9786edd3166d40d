"""The order in which the gradients of a step's batches are added, on any number of ranks.

A sum of floats depends on its order. That of MPI_Allreduce depends on the number of ranks, on the
size of the message and on the network, so its bits do too. Here the order depends only on
the number of batches A (gradient_accumulation_steps). They are halved, up to three times while
their number is even. Each part is divided by its largest odd prime factor, or by four if it has
none, again and again, and parts are added from left to right. For A = 12:

    ((0 + 1 + 2) + (3 + 4 + 5)) + ((6 + 7 + 8) + (9 + 10 + 11))

Each of R ranks has A / R consecutive batches. It adds those that are a part of this sum, and sends
what is left as several partial sums to the rank that adds the rest. For 2 and 4 ranks that is one
partial sum of each rank; of 3 ranks, the second has three: 4, 5 and 6 + 7. With one partial sum, a
rank sends no more bytes than in the best MPI_Allreduce; with several, as many times more. More
halvings would leave one for more numbers of ranks, but a process that has all batches holds a
gradient for each division.
"""

import itertools
from dataclasses import dataclass, field

# How many times the batches are halved.
HALVINGS = 3

# The consecutive batches of a partial sum: the first, and the one after the last.
Range = tuple[int, int]


def additions(batches: Range, halvings: int = HALVINGS) -> set[tuple[int, int, int]]:
    """Return the additions of the sum: first, middle, last for [first, middle) + [middle, last)."""
    first, last = batches
    if last - first == 1:
        return set()
    parts = divisor(last - first, halvings)
    ends = range(first, last + 1, (last - first) // parts)
    found = {(first, ends[part], ends[part + 1]) for part in range(1, parts)}
    return found.union(*(additions(part, halvings - 1) for part in itertools.pairwise(ends)))


def divisor(number: int, halvings: int) -> int:
    """Return by what a number of batches is divided."""
    if halvings > 0 and number % 2 == 0:
        return 2
    odd = [each for each in range(3, number + 1, 2) if number % each == 0]
    primes = [each for each in odd if all(each % other for other in odd if other < each)]
    return max(primes, default=min(number, 4))


class PartialSums:
    """Partial sums in arrays that are known by number: each is added to the left one if it can be.

    `ranges` are the batches of those that are left, `arrays` their numbers.
    """

    def __init__(self, batches: int) -> None:
        self.additions = additions((0, batches))
        self.ranges: list[Range] = []
        self.arrays: list[int] = []

    def push(self, batches: Range, array: int) -> list[tuple[int, int]]:
        """Append a partial sum, and return the additions to do: to which array, and which one."""
        self.ranges.append(batches)
        self.arrays.append(array)
        found: list[tuple[int, int]] = []
        while len(self.ranges) > 1:
            (first, middle), (start, last) = self.ranges[-2:]
            if middle != start or (first, middle, last) not in self.additions:
                break
            found.append((self.arrays[-2], self.arrays.pop()))
            self.ranges[-2:] = [(first, last)]
        return found


@dataclass(frozen=True)
class Round:
    """Batches that run at the same time, the array of each, and the additions after each."""

    batches: range
    arrays: list[int]
    additions: list[list[tuple[int, int]]]


@dataclass
class Plan:
    """The rounds of a rank, and the partial sums that it ends with, in arrays 0 to count - 1."""

    rounds: list[Round] = field(default_factory=list[Round])
    count: int = 0
    ranges: list[Range] = field(default_factory=list[Range])
    arrays: list[int] = field(default_factory=list[int])


def share(batches: int, ranks: int, rank: int) -> range:
    """Return the batches of a rank. Raise ValueError if they cannot be divided among the ranks."""
    if batches % ranks:
        raise ValueError(indivisible(batches, ranks))
    each = batches // ranks
    return range(rank * each, (rank + 1) * each)


def indivisible(batches: int, ranks: int) -> str:
    """Return a message that names the nearest numbers that can be divided."""
    divisors = [number for number in range(1, batches + 1) if batches % number == 0]
    near = [max(n for n in divisors if n < ranks), *(n for n in divisors if n > ranks)][:2]
    below, above = batches // ranks * ranks, -(-batches // ranks) * ranks
    steps = " or ".join(str(number) for number in (below, above) if number)
    return (
        f"gradient_accumulation_steps = {batches} cannot be divided among {ranks} ranks: start "
        f"{' or '.join(map(str, near))}, or a new run with --gradient-accumulation-steps {steps}"
    )


def plan(batches: int, own: range, at_once: int) -> Plan:
    """Return the order of work of a rank that has the batches `own` of a step."""
    sums, found = PartialSums(batches), Plan()
    free: list[int] = []

    def take() -> int:
        if not free:
            free.append(found.count)
            found.count += 1
        return free.pop()

    for start in range(own.start, own.stop, at_once):
        together = range(start, min(start + at_once, own.stop))
        arrays = [take() for _ in together]
        added: list[list[tuple[int, int]]] = []
        for batch, array in zip(together, arrays, strict=True):
            added.append(sums.push((batch, batch + 1), array))
            free += [right for _, right in added[-1]]
        found.rounds.append(Round(together, arrays, added))
    found.ranges, found.arrays = sums.ranges, sums.arrays
    return found
