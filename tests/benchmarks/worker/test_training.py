"""A training run in turns: its steps, its evaluations, and the clock."""

from typing import Any
from unittest.mock import Mock

import pytest

from benchmarks.worker import training
from benchmarks.worker.training import Run, Runs


class Clock:
    """A clock that training and evaluating move."""

    def __init__(self) -> None:
        self.now, self.steps, self.evaluated = 100.0, list[int](), 0

    def train(self, steps: int) -> None:
        self.steps.append(steps)
        self.now += 0.5 * steps

    def evaluate(self) -> float:
        self.now += 1000
        self.evaluated += 1
        return 4.0 - self.evaluated


def opened(
    monkeypatch: pytest.MonkeyPatch, steps: int, evaluations: int
) -> tuple[Runs, Clock, dict[str, Any]]:
    clock = Clock()

    def build(named: str) -> Run:
        assert named == "a recipe"
        clock.now += 7  # It compiles.
        return Run(steps, clock.train, clock.evaluate)

    monkeypatch.setattr(training, "named", {"a:build": build}.__getitem__)
    monkeypatch.setattr(training, "wait_for_sleep", Mock())
    runs = Runs(lambda: clock.now)
    return runs, clock, runs.open("a:build", {"named": "a recipe"}, evaluations)


def test_compilation_is_timed_apart_and_evaluation_not_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs, clock, about = opened(monkeypatch, 10, 2)
    assert about == {"steps": 10, "warm_up_seconds": 7}
    assert clock.steps == []  # No step is taken before the clock runs.
    first, second = runs.turn(), runs.turn()
    assert (first["seconds"], second["seconds"]) == ([2.5], [2.5])
    assert second["losses"] == [3.0, 2.0]
    assert second["memory"] > 1e6


@pytest.mark.parametrize(
    ("steps", "evaluations", "parts"),
    [(12, 4, [3, 3, 3, 3]), (11, 4, [2, 3, 3, 3]), (2, 3, [0, 1, 1]), (5, 1, [5])],
)
def test_all_steps_are_taken_in_turns_that_are_nearly_equal(
    steps: int, evaluations: int, parts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, clock, _ = opened(monkeypatch, steps, evaluations)
    for _ in range(evaluations):
        runs.turn()
    assert clock.steps == parts
    assert clock.evaluated == evaluations


def test_a_turn_ends_when_the_threads_of_libraries_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    runs, clock, _ = opened(monkeypatch, 4, 2)
    asleep: list[int] = []
    monkeypatch.setattr(training, "wait_for_sleep", lambda: asleep.append(clock.evaluated))
    runs.turn()
    assert asleep == [1]
