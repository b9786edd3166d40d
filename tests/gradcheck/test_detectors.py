"""The detectors accept the right backward, and each weak check misses what it is known to miss."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tinygpt_np.gradcheck import detectors
from tinygpt_np.gradcheck.detectors import (
    WEAK_CHECKS,
    Detectors,
    MutantResult,
    RightResult,
    plant,
    work,
)
from tinygpt_np.gradcheck.measure import METHODS
from tinygpt_np.gradcheck.mutations import Site, sites


def site(operation: str) -> Site:
    return next(chosen for chosen in sites() if chosen.operation == operation)


def planted(operation: str, after: str) -> MutantResult:
    chosen = site(operation)
    mutation = next(m for m in chosen.mutations() if m.after == after)
    return plant(chosen, mutation, 0)


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
    detected = {name for name, found in planted(operation, after).detected.items() if found}
    assert set(METHODS) <= detected
    assert not detected & misses


def test_a_mutant_that_writes_to_its_input_does_not_affect_later_detections() -> None:
    def writes(dy: np.ndarray, saved: Any) -> np.ndarray:
        dy *= 2
        saved[0][...] = 0
        return dy

    chosen, named = site("gelu"), Detectors("gelu").named
    oracles = (*METHODS, "sum", "float32")
    with chosen.planted(writes):
        assert [name for name in oracles if not named()[name]()] == []
    assert [name for name in oracles if named()[name]()] == []


def test_a_listed_mutant_is_also_checked_where_a_size_is_1(monkeypatch: pytest.MonkeyPatch) -> None:
    linear, attention = (site(name).owner.backward for name in ("linear", "attention"))

    def wrong_for_one_row(dy: np.ndarray, saved: Any) -> Any:
        dx, dweight, dbias = linear(dy, saved)
        return (2 * dx if len(dx) == 1 else dx), dweight, dbias

    assert not Detectors("linear").detect_elsewhere()
    with site("linear").planted(wrong_for_one_row):
        assert Detectors("linear").detect_elsewhere()

    # A size that only one of the variants has.
    def wrong_for_one_key_head(dy: np.ndarray, saved: Any) -> Any:
        return attention(dy, saved) * (1 + (saved[6] == 1))

    assert not Detectors("attention").detect_elsewhere()
    with site("attention").planted(wrong_for_one_key_head):
        assert Detectors("attention").detect_elsewhere()
    listed = "dweight = -np.zeros(shape, dtype=drows.dtype)"
    found = planted("embedding", listed)
    assert found.reason == "-0 is 0"
    assert not found.error
    assert replace(found, reason="").error == "survived, and is not listed as changing nothing"
    monkeypatch.setattr(Detectors, "detect_elsewhere", lambda *_: True)  # pyright: ignore
    changes = "listed as changing nothing, but it changes a gradient"
    assert planted("embedding", listed).error == changes


def test_a_result_describes_the_problem_or_the_error() -> None:
    lost = planted("embedding", "dweight[ids] += drows")
    assert (lost.kind, lost.line) == ("scatter", 33)
    assert lost.cause.startswith("repeated indices are lost: write `np.add.at(dweight, ids, drows)")
    assert "weight: off by" in lost.problem
    assert not lost.error
    # A bug that only a weak check detects has survived.
    assert replace(lost, detected=lost.detected | {"complex": False}).error
    swapped = planted("embedding", "shape, ids = saved")
    assert swapped.detected["complex"]
    assert swapped.raised
    assert swapped.problem == f"raises {swapped.raised}"


def test_a_false_alarm_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    number = next(i for i, each in enumerate(sites()) if each.operation == "dropout")
    assert work((number, None, 0, ())) == RightResult("dropout", "backward", ())
    # Training can be made too short for the right gradient.
    monkeypatch.setattr(detectors, "STEPS", 1)
    with pytest.raises(RuntimeError, match=r"dropout\.backward is right, .*: loss"):
        work((number, None, 0, ()))
