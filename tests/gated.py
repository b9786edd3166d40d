"""Rungs and peers at the gate, at small sizes."""

import functools
from concurrent.futures import ThreadPoolExecutor

from benchmarks import tasks
from benchmarks.gate import TRIALS, Trial
from benchmarks.ladders import Rung
from benchmarks.tasks import Task

# Of every task: large enough for every loop to go round, small enough for Python; none is a whole
# number of vectors.
SIZES = {"N": 23, "C": 37, "K": 70, "V": 41, "B": 3, "T": 19, "H": 2, "D": 21, "P": 1003}
POOL = ThreadPoolExecutor(3)
CASES = [
    (operation, direction)
    for operation in tasks.OPERATIONS
    for direction in tasks.directions(operation)
]


@functools.cache
def trials(operation: str, direction: str) -> list[Trial]:
    found = tasks.module(operation)
    sizes = {letter: SIZES[letter] for letter in found.SIZES["cpu"]}
    task = Task(operation, direction, "tiny", sizes, found.DIRECTIONS[direction])
    return [Trial(task, 0, number) for number in range(TRIALS)]


def pass_gate(rung: Rung, operation: str, direction: str, threads: int = 1) -> None:
    """Raises Wrong where a rung is. Its second step must not know of its first; AdamW moves on."""
    way = rung.ways[direction]
    for trial in trials(operation, direction):
        call = trial.call(threads, POOL)
        step = way.prepare(call)
        if operation != "adamw":
            step()
            for name in trial.task.how.changed:
                call.inputs[name][...] = trial.inputs[name]
        returned = step()
        if way.collect is not None:
            way.collect(call, returned)
        trial.check(call)
