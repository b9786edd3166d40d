"""The time of a training step on many machines: computing, a network of latency and bandwidth.

A message of n bytes takes α + n·β seconds: the latency α, and β, the inverse of the bandwidth. A
machine sends and receives at full speed at the same time, and the messages of one machine follow
each other. Adding takes γ seconds per byte. This is the model of Thakur, Rabenseifner and Gropp,
"Optimization of Collective Communication Operations in MPICH", 2005, section 3. There, for R
machines and n bytes:

    reduce-scatter, pairwise exchange   (R - 1)·α + (R - 1)/R·n·β + (R - 1)/R·n·γ
    all-gather, ring                    (R - 1)·α + (R - 1)/R·n·β

An allreduce of long messages is one of each. So is the exchange of training: the gradients go to
the owners of their parts, and the new weights from there to all. But its n bytes are cut into M
buckets, each of which is a message, and a machine that cannot add up all its gradients in the fixed
order sends several partial sums, P. All machines together send S:

    gradients   P·(R - 1)/R·(M·α + n·β) + (S - 1)/R·n·γ
    weights       (R - 1)/R·(M·α + n·β)

With --reduction fast, P is 1, S is R, and MPI adds.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Literal

from tinygpt_np.storage.parameters import BLOCK
from tinygpt_np.training.ranks import order
from tinygpt_np.training.ranks.order import PartialSums
from tinygpt_np.training.ranks.shards import PER_RANK

Reduction = Literal["exact", "fast"]

# Bytes of a bucket at most.
BUCKET = 4 * BLOCK
# Exchanges of a few numbers in each step: the losses, and the norm of the gradients.
SMALL_EXCHANGES = 2
# The end of a search for a number of machines, or for a factor.
MOST = 1e12


@dataclass(frozen=True)
class Network:
    """A network. latency: seconds of a message. bandwidth: bytes per second in each direction."""

    latency: float
    bandwidth: float

    def messages(self, ranks: float, size: float) -> float:
        """Return the seconds in which a machine sends `size` bytes, but not the part that it owns.

        As many bytes arrive at the same time.
        """
        count = max(size / BUCKET, PER_RANK * ranks)
        return (ranks - 1) / ranks * (count * self.latency + size / self.bandwidth)


@dataclass(frozen=True)
class Machine:
    """The measured times of one machine.

    packing: seconds to prepare the weights, once in each step. step: seconds of an accumulation
    step, forward and backward. update: seconds of the norm and the update of all parameters.
    adding: seconds per byte to add gradients.
    """

    packing: float
    step: float
    update: float
    adding: float

    def faster(self, factor: float) -> "Machine":
        """Return a machine that is `factor` times as fast."""
        return Machine(*(seconds / factor for seconds in astuple(self)))


@dataclass(frozen=True)
class Job:
    """The work of a training step.

    late: fraction of the gradients that is complete only at the end. window: fraction of an
    accumulation step in which the others become complete.
    """

    accumulation: int
    size: int
    late: float
    window: float


@dataclass(frozen=True)
class Prediction:
    """The seconds of a step on `ranks` machines, each with `steps` accumulation steps.

    sums: partial sums of a machine at most. gradients: the part of their exchange that is
    not hidden, and the adding. weights: their exchange, and that of losses and norms.
    """

    ranks: int
    steps: int
    sums: int
    compute: float
    gradients: float
    update: float
    weights: float

    @property
    def total(self) -> float:
        """The whole step."""
        return self.compute + self.communication + self.update

    @property
    def communication(self) -> float:
        """The time that one machine alone would not need."""
        return self.gradients + self.weights

    @property
    def share(self) -> float:
        """The fraction of the step that is communication."""
        return self.communication / self.total


@functools.cache
def partial_sums(accumulation: int, ranks: int) -> list[int]:
    """Return how many partial sums each rank sends of the fixed order of the accumulation steps."""
    sums, counts = PartialSums(accumulation), list[int]()
    for rank in range(ranks):
        sums.ranges, sums.arrays = [], []
        for batch in order.share(accumulation, ranks, rank):
            sums.push((batch, batch + 1), batch)
        counts.append(len(sums.ranges))
    return counts


def exposed(sent: float, window: float, late: float) -> float:
    """Return the seconds after the last backward in which a machine still sends gradients.

    sent: seconds to send them. window: seconds before the end of the backward in which they become
    complete, but for the late fraction. The network is never idle while there is something to send.
    """
    return max(late * sent, sent - window)


def predict(
    job: Job, ranks: int, machine: Machine, network: Network, reduction: Reduction = "exact"
) -> Prediction:
    """Return the times of a step on a number of machines, which must divide the accumulation."""
    steps, rest = divmod(job.accumulation, ranks)
    if rest:
        raise ValueError(f"{ranks} machines do not divide {job.accumulation} accumulation steps")
    counts = partial_sums(job.accumulation, ranks) if reduction == "exact" else [1] * ranks
    sent = max(counts) * network.messages(ranks, job.size)
    adding = (sum(counts) - 1) / ranks * job.size * machine.adding
    gradients = exposed(sent, job.window * machine.step, job.late) + adding
    own = (steps - max(counts)) * job.size * machine.adding
    compute, update = machine.packing + steps * machine.step + own, machine.update / ranks
    small = SMALL_EXCHANGES * math.ceil(math.log2(ranks)) * network.latency
    weights = network.messages(ranks, job.size) + small
    return Prediction(ranks, steps, max(counts), compute, gradients, update, weights)


def efficiency(alone: Prediction, many: Prediction) -> float:
    """Return the speedup over one machine, divided by the number of machines."""
    return alone.total / (many.ranks * many.total)


def divisors(number: int, most: int) -> list[int]:
    """Return the numbers up to `most` that divide a number."""
    return [each for each in range(1, most + 1) if number % each == 0]


def begins(predictions: Sequence[Prediction]) -> Prediction | None:
    """Return the first prediction with more communication than anything else, or None."""
    return next((each for each in predictions if each.share > 0.5), None)


def break_even(job: Job, machine: Machine, network: Network) -> float:
    """Return at how many machines communication would take as long as the rest of the step.

    Any number of machines is allowed here, also more than there are accumulation steps, as if these
    could be divided. Each machine sends one partial sum.
    """

    def excess(ranks: float) -> float:
        step = job.accumulation * machine.step / ranks
        sent = network.messages(ranks, job.size)
        window = job.window * min(step, machine.step)
        left = exposed(sent, window, job.late) + job.size * machine.adding
        return left + sent - step - machine.packing - machine.update / ranks

    return crossing(excess, 1.0)


def speed_to_dominate(job: Job, ranks: int, machine: Machine, network: Network) -> float:
    """Return how many times as fast machines must be for communication to take half of the step."""

    def excess(factor: float) -> float:
        return predict(job, ranks, machine.faster(factor), network).share - 0.5

    return crossing(excess, 1 / MOST)


def network_of(seconds_per_byte: float, ranks: int) -> Network:
    """Return the network on which an exchange of n bytes, to the owners and back, takes n times so.

    The latency of its messages is in the seconds per byte.
    """
    return Network(0.0, 2 * (ranks - 1) / ranks / seconds_per_byte)


def crossing(excess: Callable[[float], float], low: float) -> float:
    """Return where an increasing function becomes positive, from `low` on; infinity beyond MOST."""
    high = MOST
    if excess(high) < 0:
        return math.inf
    while high / low > 1 + 1e-9:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if excess(middle) >= 0 else (middle, high)
    return high


def fit(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the latency and the seconds per byte of (bytes, seconds), ordered by bytes.

    They are those of the smallest and of the largest message. Between these, messages that fit the
    caches of a machine may be faster.
    """
    (_, latency), (size, seconds) = points[0], points[-1]
    return latency, (seconds - latency) / size
