"""The clock of compiling."""

from typing import Any

import numba
import numpy as np
from numba.core import event

from benchmarks.harness.compile_time import CompileTime

njit: Any = numba.njit
events: Any = event


def test_compiling_is_counted_once_with_what_is_compiled_within_it() -> None:
    @njit
    def inner(x: Any) -> Any:
        return x * x

    @njit
    def outer(x: Any) -> Any:
        return inner(x) + 1

    clock, alone = CompileTime(), events.TimingListener()
    with events.install_listener("numba:compile", alone):
        outer(1.0)
    seconds = clock.seconds
    assert 0 < seconds <= 1.01 * alone.duration
    assert clock.by_module == {__name__: seconds}
    outer(2.0)
    assert clock.seconds == seconds
    outer(np.float32(1))
    assert clock.seconds > seconds
