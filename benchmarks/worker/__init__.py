"""The code of the worker processes: steps, which are checked and timed.

__main__.py      answers requests, and forks
clock.py         times steps: warm-up, samples, waiting for CPUs
slowed.py        a rung that does part of its work twice, for campaign.py
jobs.py          a job (a training step, a sampled token, …) as timed steps
gradients.py     an accumulation step, the update, and the adding of gradients
reduction.py     the sum of gradients over ranks by size, under mpirun
rungs.py         the rungs of a ladder as timed steps; compile times
gate.py          checks a rung before it is timed, in its turns, and afterwards
problem.py       inputs of a case, and which results are right
memory.py        the memory of an array, between guards and in other layouts
limits.py        measures peak FLOP/s and bandwidth
protocols.py     other clocks: limits.c, a plain C program, and timeit
asm.py           the machine code of a kernel: vector instructions, the hottest loop
sampling.py      where a step spends its time, by perf_event_open
loops.py         the loops of assembly; instructions.py: what an instruction does
counters.py      instructions, cycles and cache misses, by perf_event_open
"""

import importlib
from typing import Any


def named(place: str) -> Any:
    """Return the object at "module:name"."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
