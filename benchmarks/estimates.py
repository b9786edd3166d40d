"""Rough estimates of what cases will take, so that a run that cannot end is not started."""

import itertools
from collections.abc import Iterator

from benchmarks import cases
from benchmarks.cases import KernelCase
from benchmarks.cases.shapes import SHAPES
from benchmarks.plan import CaseNames, Plan
from tinygpt_np.machine import available_memory

# Bytes of a run at small sizes.
LEAST = 5e8
# Bytes per number in the process of a case, which computes the truth in float64 with its bounds,
# and in each of its forks, which has the inputs twice and scratch buffers.
TRUTH, COPY = 60, 8
# Candidates on one thread in a short and in a long ladder, with their controls.
FEW, MANY = 4, 14
# Their FLOP/s, and steps of the truth, of a check and of a turn.
FAST, SLOW = 5e10, 1e10
TRUTH_STEPS, CHECK_STEPS, TURN_STEPS = 20, 6, 2
# Seconds that a case of a sweep may take.
PATIENCE = 900


def memory(case: KernelCase, plan: Plan) -> float:
    """Return the bytes that a case takes at once."""
    processes = 1 + len(plan.peers) * len(plan.threads)
    return LEAST + case.numbers * (processes * TRUTH + candidates(plan) * COPY)


def seconds(case: KernelCase, plan: Plan) -> float:
    """Return the seconds that a case takes, if it is large."""
    steps = TRUTH_STEPS + candidates(plan) * (CHECK_STEPS + plan.rounds * TURN_STEPS)
    return case.flops * steps / (FAST if plan.trained_only else SLOW)


def candidates(plan: Plan) -> int:
    """Return how many take turns, with the limits of the machine."""
    ladder = FEW if plan.trained_only else MANY
    return ladder + (3 + len(plan.peers)) * len(plan.threads) + 2 * len(plan.mine)


def obstacles(plan: Plan) -> dict[CaseNames, str]:
    """Return why typed shapes cannot be measured: for memory or, in a sweep, time."""
    found: dict[CaseNames, str] = {}
    free = available_memory()
    for names in (each for each in plan.cases if each[-1] not in SHAPES):
        case = cases.case(*names)
        if (needed := memory(case, plan)) > free:
            found[names] = f"needs about {gigabytes(needed)} of memory, {gigabytes(free)} are free"
        elif plan.sweep is not None and (taken := seconds(case, plan)) > PATIENCE:
            found[names] = f"takes about {taken / 60:,.0f} minutes"
    return found


def gigabytes(size: float) -> str:
    """Return a size in words."""
    return f"{size / 1e9:,.1f} GB"


def in_words(obstacles: dict[CaseNames, str]) -> Iterator[str]:
    """Yield a line for each direction, with its smallest shape."""
    for direction, group in itertools.groupby(obstacles, key=lambda names: names[:2]):
        first, *others = group
        more = f" and {len(others)} larger" if others else ""
        yield f"{' '.join(direction)} at {first[-1]}{more}, which {obstacles[first]}"
