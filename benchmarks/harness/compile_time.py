"""A clock of the time that Numba spends compiling in this process."""

import time
from collections import defaultdict
from typing import Any, cast

from numba.core import event

events: Any = cast(Any, event)


class CompileTime(events.Listener):
    """A clock of compilation, which runs from its construction; loading from disk does not count.

    by_module: seconds by the module of the compiled function; functions that it calls are compiled
    within its time.
    """

    def __init__(self) -> None:
        self.depth, self.began = 0, 0.0
        self.by_module: dict[str, float] = defaultdict(float)
        events.register("numba:compile", self)

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return sum(self.by_module.values())

    def on_start(self, event: Any) -> None:
        """Start the clock at the outermost compilation."""
        if self.depth == 0:
            self.began = time.perf_counter()
        self.depth += 1

    def on_end(self, event: Any) -> None:
        """Stop the clock at the end of the outermost compilation."""
        self.depth -= 1
        if self.depth == 0:
            self.by_module[module_of(event.data["dispatcher"])] += time.perf_counter() - self.began


def module_of(compiled: Any) -> str:
    """Return the module of a compiled function: one of `njit`, or an intrinsic."""
    function = getattr(compiled, "py_func", None) or compiled._defn
    return function.__module__
