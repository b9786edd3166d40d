"""Rungs and peers at the gate, at small sizes."""

import functools
from concurrent.futures import ThreadPoolExecutor

from benchmarks import cases
from benchmarks.cases import KernelCase
from benchmarks.ladders import Rung
from benchmarks.worker.gate import Gate
from benchmarks.worker.problem import Problem, problems_of
from tinygpt_np.compiled.threads import limited

# Large enough for every loop to repeat, small enough for Python; none is a multiple of a vector.
SIZES = {
    "N": 23, "C": 37, "K": 70, "V": 41, "B": 3, "T": 19, "H": 2, "D": 21, "R": 13, "P": 1003,
    "Q": 111, "F": 148, "uses": 5,
}  # fmt: skip
POOL = ThreadPoolExecutor(3)
CASES = [
    (operation, direction)
    for operation in cases.OPERATIONS
    for direction in cases.directions(operation)
]


def tiny_case(operation: str, direction: str) -> KernelCase:
    """Return a case at small sizes."""
    how = cases.module(operation).DIRECTIONS[direction]
    sizes = {letter: SIZES[letter] for letter in cases.sizes(operation, "cpu")}
    return KernelCase(operation, direction, "tiny", sizes, how)


@functools.cache
def problems(operation: str, direction: str, shape: str | None = None) -> list[Problem]:
    """Return the problems of a case at a shape, or else at small sizes."""
    named = shape and cases.case(operation, direction, shape)
    return problems_of(named or tiny_case(operation, direction), 0)


def pass_gate(
    rung: Rung, operation: str, direction: str, threads: int = 1, shape: str | None = None
) -> str:
    """Return the layouts that a rung takes; raise WrongResult if it is wrong."""
    gate = Gate(rung.runners[direction], problems(operation, direction, shape), threads, POOL)
    with limited(threads):
        gate.open()
        with gate.turn():
            gate.trial.step()
        gate.cpus.clear()  # Threads of other tests may be running.
        return gate.close()
