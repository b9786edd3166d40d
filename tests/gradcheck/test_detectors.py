"""The judges: right about the right backward, and each blind to what it is said to be blind to."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinygpt_np.gradcheck.detectors import TRAINED, WEAK_CHECKS, Detectors, loss_halves, plant
from tinygpt_np.gradcheck.measure import METHODS
from tinygpt_np.gradcheck.mutations import Site, sites


def site(room: str) -> Site:
    return next(chosen for chosen in sites() if chosen.operation == room)


def noticed_by(room: str, after: str) -> set[str]:
    """The judges that notice a mutant; one that raises is noticed."""
    chosen = site(room)
    mutation = next(m for m in chosen.mutations() if m.after == after)
    result = plant(chosen, mutation, 0)
    return {name for name, noticed in result.detected.items() if noticed}


def test_the_judges_are_the_oracles_and_the_habits() -> None:
    assert set(Detectors("linear").named(as_it_is)) == {*METHODS, *WEAK_CHECKS}


def as_it_is(*args: Any) -> Any:
    return site("linear").owner.backward(*args)


@pytest.mark.parametrize("room", ["linear", "cross_entropy", "dropout", "softmax"])
def test_no_judge_accuses_the_right_backward(room: str) -> None:
    right = site(room).owner.backward
    assert [name for name, judge in Detectors(room).named(right).items() if judge()] == []


def test_ones_for_the_upstream_gradient_pass_as_a_sum() -> None:
    noticed = noticed_by("dropout", "dx = np.ones_like(dy).copy() if mask is None else dy * mask")
    assert {*METHODS, "float32"} <= noticed
    assert "sum" not in noticed


def test_the_diagonal_of_softmax_alone_passes_in_a_training() -> None:
    noticed = noticed_by("softmax", "dx = probs * dprobs")
    assert set(METHODS) <= noticed
    assert "loss" not in noticed


def test_shared_memory_is_noticed_by_the_checks_alone() -> None:
    noticed = noticed_by("dropout", "dx = dy if mask is None else dy * mask")
    assert noticed == {*METHODS, "sum"}


def test_a_scatter_that_loses_repeated_ids_passes_in_a_training() -> None:
    noticed = noticed_by("embedding", "dweight[ids] += drows")
    assert set(METHODS) <= noticed
    assert "loss" not in noticed


def test_the_derivative_of_the_other_gelu_passes_where_numbers_are_small() -> None:
    noticed = noticed_by("gelu", "return gelu_exact.backward(dy, gelu_exact.forward(x)[1])")
    assert set(METHODS) <= noticed
    assert not noticed & {"loss", "absolute"}


def test_a_bias_that_is_taken_for_granted_passes_where_there_always_is_one() -> None:
    noticed = noticed_by("linear", "dbias = dy.sum(axis=0)")
    assert set(METHODS) <= noticed
    assert not noticed & {"loss", "absolute", "init"}


def test_a_mutant_that_writes_to_its_input_spoils_no_later_verdict() -> None:
    chosen, jury = site("gelu"), Detectors("gelu")

    def writes(dy: np.ndarray, saved: Any) -> np.ndarray:
        dy *= 2
        saved[0][...] = 0
        return dy

    for mutant, verdict in ((writes, True), (chosen.owner.backward, False)):
        judges: dict[str, Callable[[], bool]] = jury.named(mutant)
        for name in (*METHODS, "sum", "float32"):
            assert judges[name]() == verdict, name


def test_the_right_gradient_halves_the_loss_and_none_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert loss_halves(TRAINED)
    monkeypatch.setattr("tinygpt_np.gradcheck.detectors.LEARNING_RATE", 0.0)
    assert not loss_halves(TRAINED)


def test_a_mutant_that_shows_only_at_other_sizes_is_noticed_there() -> None:
    def wrong_for_one_row(dy: np.ndarray, saved: Any) -> Any:
        dx, dweight, dbias = site("linear").owner.backward(dy, saved)
        return (2 * dx if len(dx) == 1 else dx), dweight, dbias

    assert Detectors("linear").detect_elsewhere(wrong_for_one_row)
    assert not Detectors("linear").detect_elsewhere(as_it_is)
