"""A ladder of softmax for the tests of the benchmarks' machinery; as a peer it says how it was set
up, and may refuse to start or to go on."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.ladders import Call, Rung, Way, direct
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
    """All is done before the clock runs."""
    right(*call.arrays.values())
    return lambda: None


def once(call: Call) -> Callable[[], None]:
    """All is done in the first step."""
    taken: list[int] = []

    def step() -> None:
        if not taken:
            right(*call.arrays.values())
        taken.append(1)

    return step


def raising(x: np.ndarray, probs: np.ndarray) -> None:
    raise IndexError("out of the toy")


def collected() -> Way:
    def prepare(call: Call) -> Any:
        return lambda: softmax.forward(call.inputs["x"])[0]

    def collect(call: Call, returned: Any) -> None:
        call.outputs["probs"][...] = returned

    return Way(prepare, collect=collect)


def in_its_twelfth_step(act: Callable[[], None]) -> Way:
    """Goes right until then."""

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

    return Way(prepare)


def fail() -> None:
    raise ArithmeticError("the toy is broken")


def interrupt() -> None:
    """Presses its parent's Ctrl-C."""
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(60)


RUNGS = {
    "right": Rung("right", "As it should be.", {"forward": direct(right)}),
    "wrong": Rung("wrong", "All zeros.", {"forward": direct(wrong)}),
    "in prepare": Rung("in prepare", "Cheats.", {"forward": Way(in_prepare)}),
    "once": Rung("once", "Cheats.", {"forward": Way(once)}),
    "going on": Rung("going on", "Cannot be asked twice.", {"forward": Way(once, goes_on=True)}),
    "raising": Rung("raising", "Fails.", {"forward": direct(raising)}),
    "collected": Rung("collected", "Returns it.", {"forward": collected()}),
    "shared": Rung("shared", "On threads.", {"forward": direct(right)}, threads="several"),
    "unable": Rung("unable", "Takes for ever.", {"forward": direct(right)}, most=1),
    "reference": Rung(
        "reference", "For comparison.", {"forward": direct(right)}, threads="any", reference=True
    ),
    "failing": Rung("failing", "Breaks.", {"forward": in_its_twelfth_step(fail)}, reference=True),
    "interrupting": Rung(
        "interrupting", "Stops.", {"forward": in_its_twelfth_step(interrupt)}, reference=True
    ),
}


def rungs(operation: str) -> list[Rung]:
    """Those named in the option "rungs"; of softmax only."""
    return [RUNGS[name] for name in OPTIONS.get("rungs", ())] if operation == "softmax" else []
