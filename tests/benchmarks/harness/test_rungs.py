"""Rungs in a worker process are checked and timed."""

import itertools
import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from helpers.processes import printed
from threadpoolctl import threadpool_info  # pyright: ignore[reportMissingTypeStubs]

from benchmarks import ROOT, cases
from benchmarks.harness import rungs
from benchmarks.harness.rungs import Rungs
from benchmarks.harness.turns import Timed, TimedSteps
from benchmarks.ladders import direct
from tinygpt_np.compiled.kernels import softmax


def made(*names: str) -> Rungs:
    found = Rungs("helpers.toy_ladder", 0, {"rungs": names})
    found.begin("softmax", "forward", "awkward")
    return found


def test_a_case_starts_with_its_cost_and_the_rungs_for_it() -> None:
    toys = Rungs("helpers.toy_ladder", 0, {"rungs": ["right", "unable"]})
    begun = toys.begin("softmax", "forward", "awkward")
    case = cases.case("softmax", "forward", "awkward")
    cost = {"sizes": case.sizes, "flops": case.flops, "bytes": case.bytes}
    assert begun["case"] == {**cost, "working_set": 4 * 2 * 101 * 67}
    assert [(rung["rung"], rung["able"]) for rung in begun["rungs"]] == [
        ("right", True),
        ("unable", False),
    ]
    assert toys.begin("softmax", "backward", "awkward")["rungs"] == []
    # An array that is changed in place counts once in the working set.
    about = toys.begin("adamw", "update", "awkward")["case"]
    assert (about["working_set"], about["bytes"]) == (4 * 4 * 10007, 4 * 7 * 10007)


@pytest.mark.parametrize("name", ["right", "collected"])
def test_a_right_rung_gets_a_key_and_takes_turns(name: str) -> None:
    found = made(name)
    report = found.open(name, 1)
    assert (report["wrong"], report["compile_seconds"]) == (None, None)
    assert 1 <= len(found.turn(report["key"])["seconds"]) <= rungs.SAMPLES


@pytest.mark.parametrize("name", ["wrong", "in prepare", "once"])
def test_a_rung_that_is_wrong_or_does_its_work_untimed_gets_none(name: str) -> None:
    report = made(name).open(name, 1)
    assert "key" not in report
    assert report["wrong"].startswith("probs[")
    assert made("raising").open("raising", 1) == {"wrong": "IndexError: out of the toy"}


def test_what_was_compiled_on_import_counts_for_the_first_rung_of_the_module() -> None:
    found = made("right", "collected")
    home = "tinygpt_np.compiled.kernels.softmax"
    found.clock.by_module = {home: 2.5, "tinygpt_np.compiled.kernels.gelu": 4.0}
    runner = direct(softmax.forward_rows)
    assert found.compile_seconds("right", runner) == 2.5
    found.clock.by_module[home] = 2.75
    assert found.compile_seconds("collected", runner) == 0.25
    assert found.compile_seconds("right", runner) == 2.5


def test_a_worker_imports_no_kernels_before_it_counts_compile_time() -> None:
    code = "import sys, benchmarks.harness.rungs; "
    code += "print('tinygpt_np.compiled.kernels' in sys.modules)"
    assert printed(code, cwd=ROOT) == "False\n"


def timed(step: Any, **others: Any) -> Timed:
    fields: dict[str, Any] = {"samples": 4, "turn_seconds": 1.0, **others}
    return Timed(step, tuple, **fields)


def test_a_sample_is_the_time_of_one_step_after_what_comes_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, clock, seen = TimedSteps(), [0.0], list[int]()

    def before() -> tuple[int]:
        clock[0] += 5.0
        return (len(seen),)

    def step(number: int) -> None:
        clock[0] += 1e-4
        seen.append(number)

    monkeypatch.setattr(
        "benchmarks.harness.turns.time", SimpleNamespace(perf_counter=lambda: clock[0])
    )
    key = found.add(Timed(step, before, samples=3, repeat=4))
    assert found.turn(key)["seconds"] == pytest.approx([1e-4] * 3)
    assert seen == [0] * 4 + [4] * 4 + [8] * 4


def test_a_turn_ends_when_its_time_is_over() -> None:
    found = TimedSteps()
    key = found.add(timed(lambda: time.sleep(0.01), samples=1000, turn_seconds=0.03))
    assert len(found.turn(key)["seconds"]) <= 3


@pytest.mark.parametrize(("seconds", "repeat"), [(1e-6, 200), (1e-4, 2), (2e-4, 1), (0.5, 1)])
def test_a_sample_repeats_short_steps(seconds: float, repeat: int) -> None:
    found = made().as_timed(tuple, tuple, 1, seconds, False)
    assert (found.repeat, found.warm_up) == (repeat, seconds < rungs.LONG_STEP)


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
    found, seen = made(), list[int]()

    def step() -> None:
        seen.extend(each["num_threads"] for each in pools() if each["user_api"] == "blas")

    for threads in (2, 1, 2):
        seen.clear()
        found.turn(found.add(timed(step, threads=threads)))
        assert set(seen) == {threads}


@pytest.mark.parametrize("library", [True, False])
def test_only_after_the_threads_of_a_library_it_waits_for_their_sleep(
    library: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(rungs, "wait_for_sleep", lambda: calls.append(1))
    found = made()
    found.turn(found.add(timed(tuple, library_threads=library)))
    assert bool(calls) == library


def test_a_turn_of_blas_ends_when_its_threads_sleep() -> None:
    found = made()
    found.turn(found.open_limit("BLAS", 2, 0)["key"])
    before = time.process_time()
    time.sleep(0.02)
    assert time.process_time() - before < 0.01


def test_a_rung_for_any_number_of_threads_has_those_of_a_library() -> None:
    found = made("reference", "shared")
    for name in ("reference", "shared"):
        found.open(name, 2)
    assert [timed.library_threads for timed in found.timed] == [True, False]


def test_what_a_kernel_overwrites_is_restored_before_a_sample() -> None:
    found = Rungs("benchmarks.ladders", 0, {})
    found.begin("adamw", "update", "awkward")
    call = found.problems[-1].call(1, found.pool(1))
    call.inputs["param"].fill(0)
    assert found.restorer(call)() == ()
    np.testing.assert_array_equal(call.inputs["param"], found.problems[-1].inputs["param"])


@pytest.mark.parametrize("name", ["peak", "triad", "update"])
def test_a_limit_takes_turns_too(name: str) -> None:
    found = made()
    report = found.open_limit(name, 2, 1 << 14)
    assert report["amount"] > 0
    assert found.turn(report["key"])["seconds"]
