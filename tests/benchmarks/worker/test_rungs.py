"""Rungs in a worker process are checked and timed."""

import copy
import gc
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numba
import numpy as np
import pytest
from helpers import toy_ladder
from helpers.processes import printed
from numba.core import event
from threadpoolctl import threadpool_info  # pyright: ignore[reportMissingTypeStubs]

from benchmarks import ROOT
from benchmarks.ladders import direct
from benchmarks.worker import counters, rungs, sampling
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
    assert made(name).open(name, 1)["wrong"].startswith(said)


def test_a_rung_is_checked_in_its_turns_and_afterwards() -> None:
    for name, said in (("right", None), ("stops in the last turn", "probs[")):
        found = made(name)
        with found.limit:
            found.open(name, 1)
            found.turn()
            assert found.gate.turns == 1
            closed = found.close()
        if said is None:
            assert closed == {"wrong": None, "layouts": "any"}
        else:
            assert said in closed["wrong"]


def test_what_was_compiled_on_import_counts_for_the_first_rung_of_the_module() -> None:
    parent = made("right", "shared")
    home, runner = "tinygpt_np.compiled.kernels.softmax", direct(softmax.forward_rows)
    for name in ("right", "shared"):
        parent.rungs[name] = replace(parent.rungs[name], runners={"forward": runner})
    parent.clock.by_module |= {home: 2.5, "tinygpt_np.compiled.kernels.gelu": 4.0}
    for name, own, expected in (("right", 0.5, 3.0), ("shared", 0.25, 0.25), ("right", 0, 3.0)):
        fork = copy.copy(parent)
        fork.clock = CompileTime()
        fork.clock.by_module[home] = parent.clock.by_module[home] + own
        assert fork.compile_seconds(name, runner) == expected
        parent.claim(name, expected)
    code = "import sys, benchmarks.worker.rungs; "
    code += "print('tinygpt_np.compiled.kernels' in sys.modules)"
    assert printed(code, cwd=ROOT) == "False\n"  # Or their time would not be counted.


@pytest.mark.parametrize("threads", [1, 2])
def test_in_a_turn_libraries_have_the_threads_of_the_step(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: Any = threadpool_info
    gc.collect()  # The rungs of earlier tests restore the threads when they are deleted.
    seen: list[int] = []

    def step(number: int, call: Any) -> None:
        seen.extend(each["num_threads"] for each in pools() if each["user_api"] == "blas")
        toy_ladder.right(*call.arrays.values())

    monkeypatch.setitem(toy_ladder.RUNNERS, "right", (toy_ladder.stepwise(step), {}))
    found = made("right")
    with found.limit:
        found.open("right", threads)
        found.turn()
    assert set(seen) == {threads}


@pytest.mark.parametrize(
    ("name", "threads", "library"),
    [("reference", 1, False), ("reference", 2, True), ("shared", 2, False)],
)
def test_rungs_for_any_number_of_threads_have_those_of_a_library(
    name: str, threads: int, library: bool
) -> None:
    found = made("reference", "shared")
    with found.limit:
        found.open(name, threads)
    assert found.timed.library_threads == library


def test_threads_of_a_library_rest_after_the_steps_of_the_gate() -> None:
    found, order = made("right"), list[str]()
    found.open("right", 1)

    @contextmanager
    def turn() -> Generator[None]:
        yield
        order.append("gate")

    found.gate = Mock(turn=turn)
    found.timed = Mock(rest=lambda: order.append("rest"))
    found.turn()
    assert order == ["gate", "rest"]


def test_a_step_is_counted_or_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    found = made("right")
    found.open("right", 1)
    for name, config in (("nanoseconds", 1), ("absent", 999)):  # software events
        monkeypatch.setattr(counters, "HARDWARE", {name: counters.Event(1, config)})
        if reason := counters.why_none():
            assert found.count() == {"reason": reason}
        else:
            assert found.count()["counters"][name] > 0


def test_the_loop_of_a_kernel_in_c_is_that_of_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    found, fields = made("right"), {"loop": ["jne .L1"]}
    monkeypatch.setattr("benchmarks.worker.asm.loop_of_library", look := Mock(return_value=fields))
    fixed = {"operation": "softmax", "direction": "forward", "save": None, "parallel": False}
    function = {"name": "f", "takes": ["x"], "types": ["c_void_p"]}
    found.bring(name="a.c:f", path="/a.so", function=function, **fixed)
    monkeypatch.setattr(found, "sample", lambda: [7])
    assert found.asm("a.c:f") == fields
    look.assert_called_once_with(Path("/a.so"), "f", [7])
    assert found.asm("right")["loop"] == []  # It is NumPy.


def test_a_step_is_sampled_in_a_further_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    found = made("right")
    found.open("right", 1)
    monkeypatch.setattr(sampling, "addresses", look := Mock(return_value=[7]))
    assert found.sample() == [7]
    timed = found.timed
    look.assert_called_once_with(timed.step, timed.arguments, timed.repeat, rungs.SAMPLED_SECONDS)
    assert timed.repeat > 1  # It is warm.
    look.side_effect = counters.CountersError("not here")
    assert found.sample() == []


def test_what_a_kernel_overwrites_is_restored_before_a_sample() -> None:
    found = Rungs("benchmarks.ladders", 0, {})
    found.begin("adamw", "update", "awkward")
    found.open("NumPy", 1)
    param = found.gate.trial.call.inputs["param"]
    param.fill(0)
    assert found.timed.before() == ()
    # Some elements vary from sample to sample.
    assert (param == found.problems[-1].inputs["param"]).mean() > 0.99


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
