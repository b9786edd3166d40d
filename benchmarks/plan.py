"""A request for a run of the kernel benchmark, and the cases that it has."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import cases
from benchmarks.cases.sweeps import Sweep
from benchmarks.mine.source import Kernel

CaseNames = tuple[str, str, str]


@dataclass(frozen=True)
class Plan:
    """A request for a run.

    sweep: sizes in place of shapes, the first of which gives the sizes that are not swept. skipped:
    cases that are left out. llmc: the folder of a checkout of llm.c, if that is a peer. csv: a file
    for all rows. cache: "hot" or "cold" (see clock.py). mine: kernels of the user. ladders: a
    module in place of ours.
    """

    operations: Sequence[str]
    shapes: Sequence[str]
    threads: Sequence[int]
    rounds: int
    trained_only: bool = False
    asm: bool = False
    counters: bool = False
    peers: Sequence[str] = ()
    llmc: str | None = None
    csv: str | None = None
    cache: str = "hot"
    sweep: Sweep | None = None
    skipped: Sequence[CaseNames] = ()
    mine: Sequence[Kernel] = ()
    ladders: str | None = None

    @property
    def cases(self) -> list[CaseNames]:
        """Operation, direction and shape of each case."""
        found = [
            (operation, direction, shape)
            for operation in self.operations
            for direction in self.directions(operation)
            for shape in self.shapes_of(operation)
        ]
        return [case for case in found if case not in self.skipped]

    def directions(self, operation: str) -> Sequence[str]:
        """Return the directions to measure: those that the user has kernels for, or all."""
        own = {each.direction for each in self.mine if each.operation == operation}
        return [each for each in cases.directions(operation) if not own or each in own]

    def shapes_of(self, operation: str) -> Sequence[str]:
        """Return the shapes of an operation."""
        if self.sweep is None:
            return self.shapes
        return self.sweep.shapes(cases.swept(operation), self.shapes[0])
