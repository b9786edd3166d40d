"""Where rungs are opened and take their turns."""

import itertools
import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from helpers.processes import printed
from threadpoolctl import threadpool_info  # pyright: ignore[reportMissingTypeStubs]
from toy_ladder import RUNGS

from benchmarks import bench, tasks
from benchmarks.bench import Bench
from benchmarks.ladders import direct
from benchmarks.tasks import Task
from benchmarks.workers import ROOT
from tinygpt_np.compiled.kernels import softmax


def made(*rungs: str, direction: str = "forward") -> Bench:
    found = Bench("toy_ladder", 0, {"rungs": rungs})
    found.begin("softmax", direction, "awkward")
    return found


def test_a_task_is_told_with_its_cost_and_who_can_do_it() -> None:
    about = Bench("toy_ladder", 0, {"rungs": ["right", "unable"]}).begin(
        "softmax", "forward", "awkward"
    )
    task = tasks.task("softmax", "forward", "awkward")
    cost = {"sizes": task.sizes, "flops": task.flops, "bytes": task.bytes}
    assert about["task"] == {**cost, "working_set": 4 * 2 * 101 * 67}
    assert [(rung["rung"], rung["able"]) for rung in about["rungs"]] == [
        ("right", True),
        ("unable", False),
    ]


def test_an_array_that_is_changed_in_its_place_is_held_once(made_adamw: dict[str, Any]) -> None:
    assert made_adamw["working_set"] == 4 * 4 * 10007
    assert made_adamw["bytes"] == 4 * 7 * 10007


@pytest.fixture
def made_adamw() -> dict[str, Any]:
    return Bench("toy_ladder", 0, {}).begin("adamw", "update", "awkward")["task"]


def test_who_does_not_go_in_a_direction_is_not_among_them() -> None:
    found = Bench("toy_ladder", 0, {"rungs": ["right"]})
    assert found.begin("softmax", "backward", "awkward")["rungs"] == []


def test_who_passes_the_gate_gets_a_key() -> None:
    report = made("right").open("right", 1)
    assert report["wrong"] is None
    assert report["key"] == 0


def test_who_does_not_gets_none_and_is_told_why() -> None:
    report = made("wrong").open("wrong", 1)
    assert "key" not in report
    assert report["wrong"].startswith("probs[")


def test_what_a_step_returns_is_collected_before_it_is_checked() -> None:
    assert made("collected").open("collected", 1)["wrong"] is None


def test_a_turn_is_of_samples_of_a_step() -> None:
    found = made("right")
    seconds = found.turn(found.open("right", 1)["key"])
    assert 1 <= len(seconds) <= bench.SAMPLES
    assert all(0 < each < 1 for each in seconds)


def test_what_is_not_compiled_has_no_seconds_of_compiling() -> None:
    assert made("right").open("right", 1)["compile_seconds"] is None


def test_what_was_compiled_on_import_is_borne_by_the_first_rung_that_is_written_there() -> None:
    found = made("right", "collected")
    home = "tinygpt_np.compiled.kernels.softmax"
    found.compiles.by_module = {home: 2.5, "tinygpt_np.compiled.kernels.gelu": 4.0}
    way = direct(softmax.forward_rows)
    one, other = RUNGS["right"], RUNGS["collected"]
    assert found.compiling(one, way) == 2.5
    found.compiles.by_module[home] = 2.75
    assert found.compiling(other, way) == 0.25
    assert found.compiling(one, way) == 2.5


def test_the_worker_has_no_kernels_before_it_counts_what_compiling_them_takes() -> None:
    code = "import sys, benchmarks.bench; print('tinygpt_np.compiled.kernels' in sys.modules)"
    assert printed(code, cwd=ROOT) == "False\n"


def test_several_threads_have_spread_before_they_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()  # Each look takes 1/64 s.
    monkeypatch.setattr(bench, "SPREADING", 0.25)
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: next(clock) / 64))
    for threads, expected in ((1, 0), (2, 15)):
        step = Mock()
        bench.warm_up(entrant(step, 1.0, threads))
        assert step.call_count == expected


def test_a_turn_ends_when_the_threads_of_a_library_sleep() -> None:
    found = made("right")
    report = found.open_limit("BLAS", 2, 0)
    found.turn(report["key"])
    before = time.process_time()
    time.sleep(0.02)
    assert time.process_time() - before < 0.01


@pytest.mark.parametrize(("seconds", "steps"), [(1e-6, 200), (1e-4, 2), (2e-4, 1), (0.5, 1)])
def test_a_sample_repeats_short_steps(seconds: float, steps: int) -> None:
    assert entrant(lambda: None, seconds=seconds).repeat == steps


def entrant(step: Any, seconds: float = 1.0, threads: int = 1, foreign: bool = False) -> Any:
    return bench.Entrant(step, lambda: None, threads, seconds, foreign)


def test_a_sample_is_the_time_of_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    found, seconds = made(), [0.0]

    def step() -> None:
        seconds[0] += 1e-4

    key = found.add(entrant(step, seconds=5e-5))
    assert found.entrants[key].repeat == 4
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: seconds[0]))
    assert found.turn(key)[:3] == pytest.approx([1e-4] * 3)


def test_what_a_kernel_changes_is_put_back_before_each_sample() -> None:
    found, values = made(), np.zeros(1)
    seen: list[float] = []

    def step() -> None:
        seen.append(float(values[0]))
        values[0] = 1.0
        time.sleep(1e-3)

    key = found.add(bench.Entrant(step, lambda: values.fill(0), 1, 1e-3, False))
    found.turn(key)
    assert len(seen) > 2
    assert set(seen[1:]) == {0.0}


def test_in_a_turn_libraries_have_the_threads_of_the_entrant() -> None:
    found = made()
    seen: list[int] = []

    pools: Any = threadpool_info

    def step() -> None:
        seen.extend(each["num_threads"] for each in pools() if each["user_api"] == "blas")

    for threads in (2, 1, 2):
        seen.clear()
        found.turn(found.add(entrant(step, threads=threads)))
        assert set(seen) == {threads}


@pytest.mark.parametrize(("foreign", "settled"), [(True, 1), (False, 0)])
def test_only_after_the_threads_of_a_library_it_waits_for_them(
    foreign: bool, settled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(bench, "settle", lambda: calls.append(1))
    found = made()
    found.turn(found.add(entrant(lambda: None, foreign=foreign)))
    assert len(calls) == settled


def test_what_takes_any_number_of_threads_has_those_of_a_library() -> None:
    found = made("reference", "shared")
    keys = [found.open(name, 2)["key"] for name in ("reference", "shared")]
    assert [found.entrants[key].foreign for key in keys] == [True, False]


@pytest.mark.parametrize("name", ["in prepare", "once"])
def test_who_does_nothing_while_the_clock_runs_does_not_pass(name: str) -> None:
    report = made(name).open(name, 1)
    assert "key" not in report
    assert report["wrong"].startswith("probs[")


def test_who_goes_on_from_step_to_step_is_not_asked_for_the_same_again() -> None:
    assert made("going on").open("going on", 1)["wrong"] is None


def test_who_raises_an_error_is_wrong() -> None:
    assert made("raising").open("raising", 1) == {"wrong": "IndexError: out of the toy"}


def test_what_a_kernel_changes_is_put_back_before_a_sample() -> None:
    found = made()
    how = tasks.module("softmax").DIRECTIONS["forward"]
    changed = tasks.Direction(
        how.inputs, how.outputs, how.truth, how.flops, how.bytes, changed=("x",)
    )
    found.task = Task("softmax", "forward", "awkward", found.task.sizes, changed)
    call = found.trials[-1].call(1, found.pool(1))
    call.inputs["x"].fill(0)
    found.restorer(call)()
    np.testing.assert_array_equal(call.inputs["x"], found.trials[-1].inputs["x"])


def test_the_inputs_are_the_same_for_all_who_have_the_seed() -> None:
    one, other = made("right"), made("right")
    for a, b in zip(one.trials, other.trials, strict=True):
        np.testing.assert_array_equal(a.inputs["x"], b.inputs["x"])


@pytest.mark.parametrize("name", ["peak", "triad", "BLAS"])
def test_a_limit_takes_turns_too(name: str) -> None:
    found = made()
    report: dict[str, Any] = found.open_limit(name, 2, 1 << 14)
    assert report["amount"] > 0
    assert found.turn(report["key"])
