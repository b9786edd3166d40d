"""Rungs in a worker process are checked and timed."""

import gc
import itertools
import time
from types import SimpleNamespace
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
from benchmarks.worker import jobs, rungs
from benchmarks.worker.jobs import Timed
from benchmarks.worker.rungs import CompileTime, Rungs
from tinygpt_np.compiled.kernels import softmax

njit: Any = numba.njit
events: Any = event


def made(*names: str) -> Rungs:
    found = Rungs("helpers.toy_ladder", 0, {"rungs": names})
    found.begin("softmax", "forward", "awkward")
    return found


def timed(step: Any, **others: Any) -> Timed:
    return Timed(step, tuple, 4, 1.0, **others)


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


def test_a_sample_is_the_time_of_one_step_after_what_comes_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, seen = [0.0], list[int]()

    def before() -> tuple[int]:
        clock[0] += 5.0
        return (len(seen),)

    def step(number: int) -> None:
        clock[0] += 1e-4
        seen.append(number)

    monkeypatch.setattr(jobs, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    assert Timed(step, before, samples=3, repeat=4).turn() == pytest.approx([1e-4] * 3)
    assert seen == [0] * 4 + [4] * 4 + [8] * 4
    # A turn also ends when its time is over.
    assert len(Timed(step, before, samples=9, turn_seconds=2.5e-4).turn()) == 3


def test_short_steps_are_repeated_and_all_but_long_ones_warm_up() -> None:
    found = made()
    for seconds, repeat in ((1e-6, 200), (1e-4, 2), (2e-4, 1), (0.5, 1)):
        added = found.timed[found.add(tuple, tuple, 1, seconds, False)]
        assert (added.repeat, added.warm_up) == (repeat, seconds < rungs.LONG_STEP)


def test_threads_spread_before_they_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()  # Each look takes 1/64 s.
    monkeypatch.setattr(rungs, "SPREAD_SECONDS", 0.25)
    monkeypatch.setattr(rungs, "time", SimpleNamespace(perf_counter=lambda: next(clock) / 64))
    for threads, expected in ((1, 0), (2, 15)):
        step = Mock()
        rungs.warm_up(timed(step, threads=threads))
        assert step.call_count == expected


def test_in_a_turn_libraries_have_the_threads_of_the_step() -> None:
    pools: Any = threadpool_info
    gc.collect()  # The rungs of earlier tests restore the threads when they are deleted.
    found, seen = made(), list[int]()

    def step() -> None:
        seen.extend(each["num_threads"] for each in pools() if each["user_api"] == "blas")

    found.timed = [timed(step, threads=1), timed(step, threads=2)]
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
