"""How long Numba has been compiling in this process."""

import time
from typing import Any, cast

from numba.core import event

events: Any = cast(Any, event)


class Compiles(events.Listener):
    """Counts from when it is made. seconds: so far; what was loaded from disk is not among it."""

    def __init__(self) -> None:
        self.seconds, self.depth, self.began = 0.0, 0, 0.0
        events.register("numba:compile", self)

    def on_start(self, event: Any) -> None:
        if self.depth == 0:  # A kernel that another one calls is compiled within its time.
            self.began = time.perf_counter()
        self.depth += 1

    def on_end(self, event: Any) -> None:
        self.depth -= 1
        if self.depth == 0:
            self.seconds += time.perf_counter() - self.began
