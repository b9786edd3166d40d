"""The detectors accept the right backward, and each weak check misses what it is known to miss."""

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tinygpt_np.gradcheck import detectors, mutations, suite
from tinygpt_np.gradcheck.detectors import (
    TRAINED,
    WEAK_CHECKS,
    Detectors,
    MutantResult,
    loss_halves,
    plant,
)
from tinygpt_np.gradcheck.measure import METHODS
from tinygpt_np.gradcheck.mutations import Site, sites

SMALL = ("embedding", "dropout")


def site(operation: str) -> Site:
    return next(chosen for chosen in sites() if chosen.operation == operation)


def detected_by(operation: str, after: str) -> set[str]:
    """Return the detectors that detect a mutant."""
    chosen = site(operation)
    mutation = next(m for m in chosen.mutations() if m.after == after)
    result = plant(chosen, mutation, 0)
    return {name for name, detected in result.detected.items() if detected}


@pytest.mark.parametrize("operation", ["linear", "cross_entropy", "dropout", "softmax"])
def test_no_detector_reports_the_right_backward(operation: str) -> None:
    right = site(operation).owner.backward
    named = Detectors(operation).named(right)
    assert set(named) == {*METHODS, *WEAK_CHECKS}
    assert [name for name, detects in named.items() if detects()] == []


@pytest.mark.parametrize(
    ("operation", "after", "misses"),
    [
        ("dropout", "dx = np.ones_like(dy).copy() if mask is None else dy * mask", {"sum"}),
        ("softmax", "dx = probs * dprobs", {"loss"}),
        ("dropout", "dx = dy if mask is None else dy * mask", {*WEAK_CHECKS} - {"sum"}),
        ("embedding", "dweight[ids] += drows", {"loss"}),
        (
            "gelu",
            "return gelu_exact.backward(dy, gelu_exact.forward(x)[1])",
            {"loss", "absolute"},
        ),
        ("linear", "dbias = dy.sum(axis=0)", {"loss", "absolute", "init"}),
    ],
    ids=["ones upstream", "diagonal", "shared memory", "scatter", "other GELU", "always a bias"],
)
def test_the_oracles_detect_what_weak_checks_miss(
    operation: str, after: str, misses: set[str]
) -> None:
    detected = detected_by(operation, after)
    assert set(METHODS) <= detected
    assert not detected & misses


def test_a_mutant_that_writes_to_its_input_does_not_affect_later_detections() -> None:
    chosen, all_of_them = site("gelu"), Detectors("gelu")

    def writes(dy: np.ndarray, saved: Any) -> np.ndarray:
        dy *= 2
        saved[0][...] = 0
        return dy

    for mutant, expected in ((writes, True), (chosen.owner.backward, False)):
        named: dict[str, Callable[[], bool]] = all_of_them.named(mutant)
        for name in (*METHODS, "sum", "float32"):
            assert named[name]() == expected, name


def test_only_a_training_that_moves_halves_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loss_halves(TRAINED)
    monkeypatch.setattr(detectors, "LEARNING_RATE", 0.0)
    assert not loss_halves(TRAINED)


def test_a_listed_mutant_is_also_checked_where_a_size_is_1(monkeypatch: pytest.MonkeyPatch) -> None:
    right = site("linear").owner.backward

    def wrong_for_one_row(dy: np.ndarray, saved: Any) -> Any:
        dx, dweight, dbias = right(dy, saved)
        return (2 * dx if len(dx) == 1 else dx), dweight, dbias

    assert Detectors("linear").detect_elsewhere(wrong_for_one_row)
    assert not Detectors("linear").detect_elsewhere(right)
    chosen = site("embedding")
    listed = next(m for m in chosen.mutations() if m.after.startswith("dweight = -np.zeros"))
    assert not plant(chosen, listed, 0).error
    monkeypatch.setattr(Detectors, "detect_elsewhere", lambda *_: True)  # pyright: ignore
    assert plant(chosen, listed, 0).error


# Running all mutants


class Queue(list[MutantResult]):
    """The results of a worker in this process."""

    put = list[MutantResult].append


@pytest.fixture(scope="module")
def results() -> list[MutantResult]:
    """All mutants of two small operations."""
    found = Queue()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(detectors, "RESULTS", [found])
        for operation in SMALL:
            detectors.work((operation, 0))
    return found


def find(results: list[MutantResult], after: str) -> MutantResult:
    return next(result for result in results if result.after == after)


def test_every_mutant_is_planted_once(results: list[MutantResult]) -> None:
    expected = [
        (site.operation, mutation.before, mutation.after)
        for site in sites()
        if site.operation in SMALL
        for mutation in site.mutations()
    ]
    assert sorted((r.operation, r.before, r.after) for r in results) == sorted(expected)
    assert len(results) == mutations.count(SMALL)


def test_every_bug_is_killed_and_every_other_mutant_is_listed(results: list[MutantResult]) -> None:
    assert [result for result in results if result.error] == []
    assert all(result.killed != bool(result.reason) for result in results)


def test_a_result_describes_the_problem_or_the_error(results: list[MutantResult]) -> None:
    lost = find(results, "dweight[ids] += drows")
    assert (lost.kind, lost.line) == ("scatter", 33)
    assert "weight: off by" in lost.problem
    swapped = find(results, "shape, ids = saved")
    assert swapped.raised
    assert swapped.killed
    assert swapped.problem == f"raises {swapped.raised}"


def test_a_wrong_list_of_equivalent_mutants_is_an_error(results: list[MutantResult]) -> None:
    equivalent = find(results, "dweight = -np.zeros(shape, dtype=drows.dtype)")
    assert replace(equivalent, reason="").error == "survived, and is not listed as changing nothing"
    listed = replace(find(results, "dweight[ids] = drows"), reason="it is harmless")
    assert listed.error == "listed as changing nothing, but it changes a gradient"


def test_a_false_alarm_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    # In this process, where training can be made too short for the right gradient.
    monkeypatch.setattr(detectors, "STEPS", 1)
    monkeypatch.setattr(detectors, "RESULTS", [Queue()])
    with pytest.raises(RuntimeError, match=r"dropout\.backward is right, .*: loss"):
        detectors.work(("dropout", 0))


def test_every_operation_with_bugs_can_be_named() -> None:
    assert set(mutations.OPERATIONS) == set(suite.NAMES) - {"block", "bigram", "step"}


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_run_with_an_error() -> None:
    results: Iterator[MutantResult] = detectors.run(("attention",), 0)
    next(results)
    for worker in multiprocessing.active_children():
        worker.kill()
    with pytest.raises(RuntimeError, match="a worker process has been killed"):
        list(results)
