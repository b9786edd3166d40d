"""A ladder of softmax for the tests of the harness; as a peer it may fail."""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from helpers.toy_cheats import CHEATS

from benchmarks.ladders import Call, Rung, Runner, direct
from tinygpt_np.ops import softmax

NAMES: list[str] = []


def set_up(rungs: Sequence[str] | None = None, **_: Any) -> None:
    """Choose the rungs: those given, or those named in the environment."""
    NAMES[:] = os.environ["TOY_RUNGS"].split(",") if rungs is None else rungs


def about() -> dict[str, Any]:
    return {"threads": os.environ["OMP_NUM_THREADS"]}


def right(x: np.ndarray, probs: np.ndarray) -> None:
    probs[...] = softmax.forward(x)[0]


def wrong(x: np.ndarray, probs: np.ndarray) -> None:
    probs[...] = 0


def raising(x: np.ndarray, probs: np.ndarray) -> None:
    raise IndexError("out of the toy")


def in_prepare(call: Call) -> Callable[[], None]:
    right(*call.arrays.values())
    return lambda: None


def stepwise(act: Callable[[int, Call], None]) -> Runner:
    """Return a runner whose step is told its number, from 1 on."""

    def prepare(call: Call) -> Any:
        taken = 0

        def step() -> None:
            nonlocal taken
            taken += 1
            act(taken, call)

        return step

    return Runner(prepare)


def once(number: int, call: Call) -> None:
    if number == 1:
        right(*call.arrays.values())


def failing(number: int, call: Call) -> None:
    if number == 6:
        raise ArithmeticError("the toy is broken")
    time.sleep(2e-3)
    right(*call.arrays.values())


RUNNERS: dict[str, tuple[Runner, dict[str, Any]]] = {
    "right": (direct(right), {"trained": True}),
    "later": (direct(right), {}),
    "later shared": (direct(right), {"threads": "several"}),
    "wrong": (direct(wrong), {}),
    "in prepare": (Runner(in_prepare), {}),
    "once": (stepwise(once), {}),
    "raising": (direct(raising), {}),
    "shared": (direct(right), {"threads": "several", "trained": True}),
    "unable": (direct(right), {"max_flops": 1}),
    "reference": (direct(right), {"threads": "any", "reference": True}),
    "failing": (stepwise(failing), {"reference": True}),
    **{name: (runner, {}) for name, runner in CHEATS.items()},
}


def rungs(operation: str) -> list[Rung]:
    """Return the chosen rungs, for the forward of softmax only."""
    chosen = NAMES if operation == "softmax" else []
    return [
        Rung(name, "An idea.", {"forward": runner}, **more)
        for name in chosen
        for runner, more in [RUNNERS[name]]
    ]
