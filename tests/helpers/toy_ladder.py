"""A ladder of softmax for the tests of the harness; as a peer it may fail."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.ladders import Call, Rung, Runner, collected, direct
from tinygpt_np.ops import softmax

OPTIONS: dict[str, Any] = {}


def set_up(**options: Any) -> None:
    OPTIONS.clear()
    OPTIONS.update(options)
    if options.get("absent"):
        raise ImportError("toys are not installed: pip install toys")


def about() -> dict[str, Any]:
    return {"options": OPTIONS, "environment": os.environ.get("OMP_NUM_THREADS")}


def right(x: np.ndarray, probs: np.ndarray) -> None:
    probs[...] = softmax.forward(x)[0]


def wrong(x: np.ndarray, probs: np.ndarray) -> None:
    probs[...] = 0


def in_prepare(call: Call) -> Callable[[], None]:
    right(*call.arrays.values())
    return lambda: None


def once(call: Call) -> Callable[[], None]:
    taken: list[int] = []

    def step() -> None:
        if not taken:
            right(*call.arrays.values())
        taken.append(1)

    return step


def raising(x: np.ndarray, probs: np.ndarray) -> None:
    raise IndexError("out of the toy")


def returning(call: Call) -> Callable[[], Any]:
    return lambda: softmax.forward(call.inputs["x"])[0]


def in_its_twelfth_step(act: Callable[[], None]) -> Runner:

    def prepare(call: Call) -> Any:
        taken = 0

        def step() -> None:
            nonlocal taken
            taken += 1
            if taken == 12:
                act()
            time.sleep(2e-3)
            right(*call.arrays.values())

        return step

    return Runner(prepare)


def fail() -> None:
    raise ArithmeticError("the toy is broken")


def interrupt() -> None:
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(60)


RUNGS = {
    "right": Rung("right", "As it should be.", {"forward": direct(right)}),
    "wrong": Rung("wrong", "All zeros.", {"forward": direct(wrong)}),
    "in prepare": Rung("in prepare", "Cheats.", {"forward": Runner(in_prepare)}),
    "once": Rung("once", "Cheats.", {"forward": Runner(once)}),
    "raising": Rung("raising", "Fails.", {"forward": direct(raising)}),
    "collected": Rung("collected", "Returns it.", {"forward": collected(returning, "probs")}),
    "shared": Rung("shared", "On threads.", {"forward": direct(right)}, threads="several"),
    "unable": Rung("unable", "Takes for ever.", {"forward": direct(right)}, max_flops=1),
    "reference": Rung(
        "reference", "For comparison.", {"forward": direct(right)}, threads="any", reference=True
    ),
    "failing": Rung("failing", "Breaks.", {"forward": in_its_twelfth_step(fail)}, reference=True),
    "interrupting": Rung(
        "interrupting", "Stops.", {"forward": in_its_twelfth_step(interrupt)}, reference=True
    ),
}


def rungs(operation: str) -> list[Rung]:
    """Return the rungs named in the option "rungs", for softmax only."""
    return [RUNGS[name] for name in OPTIONS.get("rungs", ())] if operation == "softmax" else []
