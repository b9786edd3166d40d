"""The ladder of softmax with one rung that does part of its work twice."""

import dataclasses
from collections.abc import Callable
from typing import Any

from benchmarks import ladders
from benchmarks.ladders import Call, Rung, Runner

OPERATION, RUNG = "softmax", "vectors"
# The part of the rows that is computed twice.
TWICE = 0.3


def rungs(operation: str) -> list[Rung]:
    """Return the rungs of an operation, one of them slowed."""
    return [
        dataclasses.replace(
            rung, runners={name: slowed(runner) for name, runner in rung.runners.items()}
        )
        if (operation, rung.name) == (OPERATION, RUNG)
        else rung
        for rung in ladders.rungs(operation)
    ]


def slowed(runner: Runner) -> Runner:
    """Return a runner that computes the first rows twice; all its arrays have as many rows."""

    def prepare(call: Call) -> Callable[[], Any]:
        rows = round(TWICE * len(next(iter(call.inputs.values()))))
        inputs = {name: array[:rows] for name, array in call.inputs.items()}
        outputs = {name: array[:rows] for name, array in call.outputs.items()}
        step = runner.prepare(call)
        part = runner.prepare(dataclasses.replace(call, inputs=inputs, outputs=outputs))

        def both() -> Any:
            step()
            part()

        return both

    return dataclasses.replace(runner, prepare=prepare)
