"""The clock of compiling."""

from typing import Any

import numba
import numpy as np
from numba.core import event

from benchmarks.harness.compile_time import CompileTime, module_of
from tinygpt_np.compiled.kernels import attention, softmax

njit: Any = numba.njit
events: Any = event


def test_compiling_is_counted_once() -> None:
    @njit
    def twice(x: Any) -> Any:
        return x + x

    clock = CompileTime()
    twice(1.0)
    seconds = clock.seconds
    assert seconds > 0
    twice(2.0)
    assert clock.seconds == seconds
    twice(np.float32(1))
    assert clock.seconds > seconds


def test_what_is_compiled_within_another_is_counted_with_it() -> None:
    @njit
    def inner(x: Any) -> Any:
        return x * x

    @njit
    def outer(x: Any) -> Any:
        return inner(x) + 1

    clock, alone = CompileTime(), events.TimingListener()
    with events.install_listener("numba:compile", alone):
        outer(1.0)
    assert clock.seconds <= 1.01 * alone.duration
    assert clock.by_module == {__name__: clock.seconds}


def test_the_home_of_what_is_compiled_is_where_it_is_written() -> None:
    assert module_of(softmax.forward_rows) == "tinygpt_np.compiled.kernels.softmax"
    assert module_of(attention.forward_head) == "tinygpt_np.compiled.simd.linking"
