"""When a kernel is called slower or faster than in another run: only beyond the noise.

Hundreds of rows are compared and machines are shared, so a verdict takes all of this:

- Whatever else runs only adds to a time, so of each round the fastest sample counts, and of the
  rounds the slowest quarter does not. All rounds of the slow side lie beyond what is left of the
  fast one: of 9 and 9 rounds, 1 in 884 orders.
- Rounds of one run are alike, runs are not. So from the gap between the sides is taken half of what
  the wider one ranges over, and what the machine lost in between: the most by which its limits
  became slower, or in the median the rungs of the same task that no kernel of ours is
  part of (Python, NumPy, peers). All of them took turns with the row. A busier machine slows them
  as well; a change of all kernels does not. They get no verdict themselves.
- What is left is beyond MARGIN and beyond what runs differ by. The rows themselves tell, for most
  did not change (Efron, "Large-scale simultaneous hypothesis testing", 2004): DEVIATIONS times the
  spread of their shifts about the median, by the median absolute deviation. Rows with several
  threads, and long ones, are apart, for these suffer most from others. With several threads it is
  also beyond what any rung gained over itself; of long ones, beyond any shift that no kernel of
  ours was part of.
- It is more than NEGLIGIBLE, or with several threads more than waking one takes.
- Where the arrays of a process lie in memory makes one row slower in all rounds (Mytkowicz et al.,
  "Producing wrong data without doing anything obviously wrong!", 2009). So another row of the same
  kernel, of another shape or number of threads, is slower as well, by half of MARGIN after the same
  deductions; without another row, it takes twice the bound.

On a busy machine little is found, then.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.standing import FASTER, SAME, SLOWER

MARGIN = math.log(1.15)
DEVIATIONS = 3
# Of a normal distribution, the standard deviation by the median absolute deviation.
DEVIATION = 1.4826
# So many rows tell a spread by themselves.
ENOUGH = 12
NEGLIGIBLE, WAKING = 1e-6, 2e-4  # seconds; a pool's thread wakes when the system lets it
# From so many seconds on, no sample of a step escapes being interrupted on a busy machine.
LONG = 2e-3
# In so small a share of orders, at the most, may two sides of the same lie apart.
CHANCE = 1 / 100

Rounds = list[float]  # the fastest sample of each, in order of size


@dataclass(frozen=True)
class Pair:
    """A row of both runs. free: of our kernels. kernel: what its rows of other shapes share.

    shifts: of what it is held against. A shift is the logarithm of how many times as long the new
    side takes.
    """

    name: str
    kernel: tuple[str, str]
    free: bool
    threads: int
    old: Rounds
    new: Rounds
    shifts: list[float]

    @property
    def kind(self) -> tuple[bool, bool]:
        return self.threads > 1, self.old[0] > LONG

    @property
    def shift(self) -> float:
        return shift(self.old, self.new) - statistics.median(self.shifts or [0.0])

    @property
    def told(self) -> bool:
        """Whether there are rounds enough."""
        return max(chance(self.old, self.new), chance(self.new, self.old)) <= CHANCE

    @property
    def losses(self) -> dict[str, float]:
        """By how much it is slower, and faster, at the least."""
        least = WAKING if self.threads > 1 else NEGLIGIBLE
        if not self.told or abs(self.new[0] - self.old[0]) < least:
            return {SLOWER: 0.0, FASTER: 0.0}
        gains = [-value for value in self.shifts]
        return {
            SLOWER: loss(self.old, self.new, self.shifts),
            FASTER: loss(self.new, self.old, gains),
        }


def shift(old: Rounds, new: Rounds) -> float:
    return math.log(new[0] / old[0])


def verdict(each: Pair, least: float, pairs: Sequence[Pair]) -> tuple[str, float]:
    """Of a row whose kind has this bound; and the factor that it took."""
    beside = [
        other
        for other in pairs
        if other is not each and not other.free and other.kernel == each.kernel
    ]
    if not beside:
        least *= 2
    found = SAME
    for side, lost in each.losses.items():
        agreed = not beside or any(other.losses[side] > MARGIN / 2 for other in beside)
        if lost > least and agreed:
            found = side
    return found, math.exp(least) if each.told else math.inf


def bound(pairs: Sequence[Pair], kind: tuple[bool, bool], control: float) -> float:
    """What the shift of a row of this kind must be beyond."""
    several, long = kind
    same_kind = [each for each in pairs if each.kind == kind]
    spread = deviation(same_kind)
    if len(same_kind) < ENOUGH:
        spread = max(spread, deviation(pairs))
    least = max(MARGIN, DEVIATIONS * DEVIATION * spread)
    if several:
        least = max(least, control)
    if long:
        least = max(least, *(abs(each.shift) for each in same_kind if each.free), 0.0)
    return least


def deviation(pairs: Sequence[Pair]) -> float:
    """The median absolute deviation of their shifts.

    From the median of our kernels or of the others: what all kernels lost is no noise.
    """
    middles = {
        free: statistics.median(each.shift for each in pairs if each.free == free)
        for free in {each.free for each in pairs}
    }
    return statistics.median(abs(each.shift - middles[each.free]) for each in pairs)


def settled(rounds: Rounds) -> Rounds:
    """Without the slowest quarter."""
    return rounds[: math.ceil(3 * len(rounds) / 4)]


def chance(fast: Rounds, slow: Rounds) -> float:
    """That all rounds of the slow side lie beyond the settled of the fast, if nothing changed."""
    count = len(fast) + len(slow)
    return math.comb(count - len(settled(fast)), len(slow)) / math.comb(count, len(slow))


def loss(fast: Rounds, slow: Rounds, shifts: Sequence[float]) -> float:
    """By how much the slow side is beyond the fast one, at the least."""
    ranges = [math.log(settled(side)[-1] / side[0]) for side in (fast, slow)]
    return math.log(slow[0] / settled(fast)[-1]) - max(ranges) / 2 - max(0.0, *shifts)
