"""Rungs in a worker process are checked and timed."""

import gc
import time
from typing import Any, cast
from unittest.mock import Mock

import numba
import numpy as np
import pytest
from helpers.processes import printed
from numba.core import event
from threadpoolctl import threadpool_info  # pyright: ignore[reportMissingTypeStubs]

from benchmarks import ROOT
from benchmarks.ladders import direct
from benchmarks.worker import rungs
from benchmarks.worker.clock import Timed
from benchmarks.worker.rungs import CompileTime, Rungs
from tinygpt_np.compiled.kernels import softmax

njit: Any = numba.njit
events: Any = event


def made(*names: str) -> Rungs:
    found = Rungs("helpers.toy_ladder", 0, {"rungs": names})
    found.begin("softmax", "forward", "awkward")
    return found


def test_an_array_that_is_changed_in_place_counts_once_in_the_working_set() -> None:
    about = made().begin("adamw", "update", "awkward")["case"]
    assert (about["working_set"], about["bytes"]) == (4 * 4 * 10007, 4 * 7 * 10007)


@pytest.mark.parametrize(
    ("name", "said"),
    [("wrong", "probs["), ("in prepare", "probs["), ("once", "probs["),
     ("raising", "IndexError: out of the toy")],
)  # fmt: skip
def test_a_rung_that_is_wrong_or_does_its_work_untimed_gets_none(name: str, said: str) -> None:
    (wrong,) = made(name).open(name, 1).values()
    assert wrong.startswith(said)


def test_what_was_compiled_on_import_counts_for_the_first_rung_of_the_module() -> None:
    found = made("right", "shared")
    home = "tinygpt_np.compiled.kernels.softmax"
    found.clock.by_module |= {home: 2.5, "tinygpt_np.compiled.kernels.gelu": 4.0}
    runner = direct(softmax.forward_rows)
    assert found.compile_seconds("right", runner) == 2.5
    found.clock.by_module[home] = 2.75
    assert found.compile_seconds("shared", runner) == 0.25
    assert found.compile_seconds("right", runner) == 2.5
    code = "import sys, benchmarks.worker.rungs; "
    code += "print('tinygpt_np.compiled.kernels' in sys.modules)"
    assert printed(code, cwd=ROOT) == "False\n"  # Or their time would not be counted.


def test_in_a_turn_libraries_have_the_threads_of_the_step() -> None:
    pools: Any = threadpool_info
    gc.collect()  # The rungs of earlier tests restore the threads when they are deleted.
    found, seen = made(), list[int]()

    def step() -> None:
        seen.extend(each["num_threads"] for each in pools() if each["user_api"] == "blas")

    found.timed = [Timed(step, threads=1), Timed(step, threads=2)]
    for key in (1, 0, 1):
        seen.clear()
        found.turn(key)
        assert set(seen) == {key + 1}


def test_a_turn_of_a_library_ends_when_its_threads_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    found = made("reference", "shared")
    keys = [found.open(name, 2)["key"] for name in ("reference", "shared")]
    keys.append(found.open_limit("BLAS", 2, 0)["key"])
    found.turn(keys[-1])
    before = time.process_time()
    time.sleep(0.02)
    assert time.process_time() - before < 0.01
    for key, waits in zip(keys, (1, 0, 1), strict=True):
        monkeypatch.setattr(rungs, "wait_for_sleep", wait := Mock())
        found.turn(key)
        assert wait.call_count == waits  # Rungs for any number of threads have a library's.


def test_what_a_kernel_overwrites_is_restored_before_a_sample() -> None:
    found = Rungs("benchmarks.ladders", 0, {})
    found.begin("adamw", "update", "awkward")
    assert found.open("NumPy", 1)["key"] == 0
    before = cast(Any, found.timed[0].before)
    (call,) = before.args
    call.inputs["param"].fill(0)
    assert before() == ()
    np.testing.assert_array_equal(call.inputs["param"], found.problems[-1].inputs["param"])


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
