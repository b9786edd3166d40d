"""Candidates take turns in rounds."""

import math
from typing import Any

import pytest

from benchmarks.harness import rounds
from benchmarks.harness.process import WorkerError
from benchmarks.harness.rounds import Candidate, Comparison

TURN = [1.0, 3.0]


class Fake:
    """A process that answers turns, fails in one, or is interrupted in one."""

    def __init__(self, fails_at: int = 0, interrupted_at: int = 0) -> None:
        self.fails_at, self.interrupted_at, self.turns = fails_at, interrupted_at, 0

    def ask(self, do: str, **_: Any) -> dict[str, Any]:
        self.turns += 1
        if self.turns == self.fails_at:
            raise WorkerError("it", "killed by signal 9", "here")
        if self.turns == self.interrupted_at:
            raise KeyboardInterrupt
        return {"seconds": TURN, "waited": 0.5, "memory": self.turns}


def comparison(*processes: Any, required: bool = True, patience: float = math.inf) -> Comparison:
    found = Comparison({})
    for name, process in zip("abcdef", processes, strict=False):
        about = {"rung": name, "by": name}
        found.candidates.append(Candidate(process, about, required, patience, timed=True))
    return found


def turns(found: Comparison) -> list[list[Any]]:
    return [row["turns"] for row in found.record["rows"]]


def test_all_take_turns_in_rounds_of_different_orders_and_tell_the_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([0.0, 50.0, 60.0, 66.0])
    monkeypatch.setattr(rounds.time, "monotonic", lambda: next(clock))
    said: list[str] = []
    found = comparison(Fake(), Fake(), Fake(), Fake())
    found.candidates[-1].timed = False
    found.take_rounds(4, said.append)
    orders = ["".join(line[-1] for line in said[at : at + 3]) for at in range(0, 12, 3)]
    assert {"".join(sorted(order)) for order in orders} == {"abc"}
    assert len(set(orders)) > 2
    assert [line.partition(":")[0] for line in said[::3]] == [
        "round 1/4", "round 2/4, about 2 min left", "round 3/4, about 60 s left",
        "round 4/4, about 22 s left",
    ]  # fmt: skip
    assert turns(found) == [[TURN] * 4] * 3 + [[]]
    assert found.record["rows"][0]["waits"] == [0.5] * 4
    assert [row.get("memory") for row in found.record["rows"]] == [4, 4, 4, None]


def test_a_slow_candidate_takes_its_least_turns_and_no_more() -> None:
    found = comparison(Fake(), patience=2.0)
    found.take_rounds(7, lambda _: None)
    assert turns(found) == [[TURN] * 5 + [None] * 2]


def test_a_candidate_that_fails_takes_no_more_turns_unless_it_is_required() -> None:
    found = comparison(Fake(), Fake(fails_at=2), required=False)
    found.take_rounds(3, lambda _: None)
    assert turns(found) == [[TURN] * 3, [TURN, None, None]]
    reasons = [row.get("failed") for row in found.record["rows"]]
    assert reasons == [None, "killed by signal 9"]
    with pytest.raises(WorkerError, match="killed by signal 9"):
        comparison(Fake(fails_at=2)).take_rounds(3, lambda _: None)


def test_ctrl_c_keeps_the_complete_rounds() -> None:
    found = comparison(Fake(), Fake(interrupted_at=3))
    with found.until_interrupted():
        found.take_rounds(9, lambda _: None)
    assert found.stopped
    found.candidates[0].turns.append([9.0])  # As if it came between two of these.
    assert turns(found) == [[TURN] * 2] * 2
