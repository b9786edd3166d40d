"""Turns in rounds, and what becomes of them when a side fails or Ctrl-C comes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from toys import side

from benchmarks import rounds
from benchmarks.rounds import DisagreementError, Measured, measure
from benchmarks.worker import WARM_UP_STEPS
from benchmarks.workers import Side, WorkerError


def quiet(_: str) -> None:
    pass


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find the toys, and a turn of one is of some 30 steps."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setattr(rounds, "TURN_SECONDS", 0.03)


def run(*sides: Side, count: int = 1, say: Callable[[str], None] = quiet) -> Measured:
    return measure(sides, 1, count, say)


def test_every_round_begins_with_another_side() -> None:
    said: list[str] = []
    run(side("a"), side("b"), side("c"), count=3, say=said.append)
    turns = "".join(line[-1] for line in said if line.startswith("round"))
    assert turns == "abcbcacab"


def test_every_side_has_a_turn_in_every_round() -> None:
    measured = run(side("a"), side("b"), count=3)
    assert {name: len(turns) for name, turns in measured.turns.items()} == {"a": 3, "b": 3}


def test_a_turn_holds_the_seconds_of_each_step() -> None:
    (turn,) = run(side("a")).turns["a"]
    assert len(turn) > 1
    assert all(seconds >= 1e-3 for seconds in turn)


def test_the_memory_of_a_side_is_its_process_s() -> None:
    assert 1e6 < run(side("a")).memory["a"] < 1e9


@pytest.mark.parametrize(
    ("step_seconds", "steps"), [(0.001, 600), (0.035, 17), (0.45, 1), (12.0, 1)]
)
def test_a_turn_is_of_as_many_steps_as_fill_it_and_at_least_one(
    monkeypatch: pytest.MonkeyPatch, step_seconds: float, steps: int
) -> None:
    monkeypatch.setattr(rounds, "TURN_SECONDS", 0.6)
    assert rounds.steps_of_a_turn(step_seconds) == steps


def test_a_turn_is_of_as_many_steps_as_are_asked_for() -> None:
    measured = measure([side("a"), side("b")], 1, 2, quiet, steps=7)
    assert [len(turn) for turns in measured.turns.values() for turn in turns] == [7, 7, 7, 7]


def test_a_side_that_agrees_within_rounding_is_measured() -> None:
    measured = run(side("a", agreement=[2.0, 3.0]), side("b", agreement=[2.0001, 3.0]))
    assert measured.turns["b"]


def test_a_side_with_nothing_to_agree_on_is_measured() -> None:
    assert run(side("a", agreement=[2.0]), side("b")).turns["b"]


@pytest.mark.parametrize("other", [2.01, float("nan")])
def test_a_side_that_does_other_work_is_refused(other: float) -> None:
    with pytest.raises(DisagreementError, match=r"b does not do the same work as a: .*, not 2"):
        run(side("a", agreement=[2.0]), side("b", agreement=[other]))


def test_a_side_that_does_not_start_is_left_out_with_its_reason() -> None:
    measured = run(side("a"), side("b", fails_at=1))
    assert measured.left_out == {"b": "b has stopped: ArithmeticError: the toy is broken"}
    assert list(measured.turns) == ["a"]


def test_without_the_first_side_there_is_no_contest() -> None:
    with pytest.raises(WorkerError, match="a has stopped: ArithmeticError: the toy is broken"):
        run(side("a", fails_at=1), side("b"))


def test_ctrl_c_keeps_the_rounds_that_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "steps_of_a_turn", one_step)
    monkeypatch.setattr("benchmarks.workers.PATIENCE", 0.1)
    at = WARM_UP_STEPS + 3  # in its third turn
    measured = run(side("a"), side("b", interrupts_at=at), count=9)
    assert measured.stopped
    assert {name: len(turns) for name, turns in measured.turns.items()} == {"a": 2, "b": 2}


def one_step(_: float) -> int:
    return 1
