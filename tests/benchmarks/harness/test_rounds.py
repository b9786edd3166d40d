"""Candidates take turns in rounds."""

import math
from typing import Any

import pytest

from benchmarks.harness.rounds import Candidate, Comparison, time_left
from benchmarks.harness.worker import WorkerError


class Fake:
    """A process that answers turns, fails in one, or is interrupted in one."""

    def __init__(self, fails_at: int = 0, interrupted_at: int = 0) -> None:
        self.fails_at, self.interrupted_at, self.turns = fails_at, interrupted_at, 0

    def ask(self, do: str, **_: Any) -> dict[str, Any]:
        self.turns += 1
        if self.turns == self.fails_at:
            raise WorkerError("it exited: killed by signal 9")
        if self.turns == self.interrupted_at:
            raise KeyboardInterrupt
        return {"seconds": [1.0, 3.0], "memory": self.turns}


def comparison(*processes: Fake, required: bool = True, patience: float = math.inf) -> Comparison:
    found = Comparison({})
    for name, process in zip("abcdef", processes, strict=False):
        about = {"rung": name, "by": name}
        candidate: Any = Candidate(process, about, required, patience, key=0)  # pyright: ignore[reportArgumentType]
        found.candidates.append(candidate)
    return found


def quiet(_: str) -> None:
    pass


def turns(found: Comparison) -> list[list[Any]]:
    return [row["turns"] for row in found.record["rows"]]


def test_every_round_starts_with_another_candidate() -> None:
    said: list[str] = []
    comparison(Fake(), Fake(), Fake()).take_rounds(4, said.append)
    assert "".join(line[-1] for line in said) == "abcabcbcacab"


def test_every_candidate_takes_a_turn_in_every_round() -> None:
    found = comparison(Fake(), Fake())
    found.take_rounds(3, quiet)
    assert turns(found) == [[[1.0, 3.0]] * 3] * 2
    assert found.record["rows"][0]["memory"] == 3


def test_a_slow_candidate_takes_its_least_turns_and_no_more() -> None:
    found = comparison(Fake(), patience=2.0)
    found.take_rounds(7, quiet)
    assert [turn is not None for turn in turns(found)[0]] == [True] * 5 + [False] * 2


def test_a_candidate_without_a_key_takes_no_turns() -> None:
    found = comparison(Fake(), Fake())
    found.candidates[1].key = None
    found.take_rounds(2, quiet)
    assert [len(row) for row in turns(found)] == [2, 0]
    assert found.record["rounds"] == 2


def test_a_candidate_that_exits_is_left_out_with_its_reason() -> None:
    found = comparison(Fake(), Fake(fails_at=2), required=False)
    found.take_rounds(3, quiet)
    assert turns(found) == [[[1.0, 3.0]] * 3, [[1.0, 3.0], None, None]]
    assert found.left_out == {"b": "it exited: killed by signal 9"}


def test_without_a_required_candidate_there_is_no_comparison() -> None:
    with pytest.raises(WorkerError, match="killed by signal 9"):
        comparison(Fake(fails_at=2)).take_rounds(3, quiet)


def test_ctrl_c_keeps_the_complete_rounds() -> None:
    found = comparison(Fake(), Fake(interrupted_at=3))
    with found.until_interrupted():
        found.take_rounds(9, quiet)
    assert found.stopped
    found.candidates[0].turns.append([9.0])  # As if it came between two of these.
    assert found.record["rounds"] == 2
    assert [len(row) for row in turns(found)] == [2, 2]


@pytest.mark.parametrize(
    ("seconds", "said"), [(12.4, "about 12 s left"), (200.0, "about 3 min left")]
)
def test_the_time_left_is_rounded(seconds: float, said: str) -> None:
    assert time_left(seconds) == said
