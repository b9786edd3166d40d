"""Holds the FLOPs and bytes of a task against those of a plain computation of it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from counting import Ledger

from benchmarks import gate, tasks
from benchmarks.tasks import Sizes, Task


def assert_costs(operation: str, direction: str, sizes: Sizes, compute: Callable[..., Any]) -> None:
    """compute takes the inputs and outputs of the task, as arrays of counting.py, and the sizes.

    Fails unless it gives what it should, with the FLOPs and bytes that the task says.
    """
    how = tasks.module(operation).DIRECTIONS[direction]
    task = Task(operation, direction, "tiny", sizes, how)
    trial = gate.Trial(task, 0, 0)
    call = trial.call(1, None)  # pyright: ignore[reportArgumentType]
    ledger = Ledger()
    arrays = {
        name: ledger.array(array if array.dtype.kind == "i" else array.astype(np.float64))
        for name, array in call.arrays.items()
    }
    for name, array in arrays.items():
        ledger.sizes[id(array)] = call.arrays[name].itemsize
    compute(**arrays, sizes=sizes)
    for name, truth in trial.truth.items():
        gate.compare(name, arrays[name].values, truth)
    assert ledger.flops == task.flops
    assert ledger.bytes == task.bytes
