"""One task: who gets in, who takes turns, and what becomes of it when somebody stops."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import climb as climbing
from benchmarks.climb import Climb, Team, climb
from benchmarks.workers import Process, WorkerError

TASK = ("softmax", "forward", "awkward")


@pytest.fixture
def team(monkeypatch: pytest.MonkeyPatch) -> Iterator[Team]:
    """Processes find the toys. Our ladder is of a right rung, and one that is shared."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setattr("benchmarks.workers.PATIENCE", 0.1)
    found = Team(process("right", "wrong", "unable", "shared"))
    yield found
    for each in (found.ours, *found.peers.values()):
        each.close()


def process(*rungs: str) -> Process:
    options = {"source": "toy_ladder", "seed": 0, "options": {"rungs": rungs}}
    return Process("toy", "benchmarks.bench:Bench", options, 1)


def quiet(_: str) -> None:
    pass


def run(team: Team, threads: tuple[int, ...] = (1,), **others: Any) -> Climb:
    asked: dict[str, Any] = {"last_only": False, "rounds": 2, "with_asm": False, "say": quiet}
    return climb(team, TASK, threads, **{**asked, **others})


def names(climbed: Climb) -> list[tuple[str, int]]:
    return [(row["rung"], row["threads"]) for row in climbed.record["rows"]]


def test_every_rung_stands_in_the_record_whether_it_climbs_or_not(team: Team) -> None:
    found = run(team, threads=(1, 2)).record
    assert [(row["rung"], row["threads"]) for row in found["rows"]] == [
        ("right", 1), ("wrong", 1), ("unable", 1), ("shared", 2),
    ]  # fmt: skip
    assert [len(row["seconds"]) for row in found["rows"]] == [2, 0, 0, 2]
    assert found["rows"][1]["wrong"]
    assert not found["rows"][2]["able"]
    assert found["rounds"] == 2
    assert not team.left_out


def test_what_needs_several_threads_is_left_out_where_there_is_one(team: Team) -> None:
    assert ("shared", 1) not in names(run(team))


def test_the_last_rung_of_each_number_of_threads_climbs_against_itself(team: Team) -> None:
    controls = run(team, threads=(1, 2)).record["controls"]
    assert [(each["rung"], each["threads"]) for each in controls] == [("right", 1), ("shared", 2)]
    assert all(len(each["seconds"]) == 2 for each in controls)


def test_the_limits_take_turns_in_every_round_for_each_number_of_threads(team: Team) -> None:
    limits = run(team, threads=(1, 2)).record["limits"]
    assert [(limit["name"], limit["threads"]) for limit in limits] == [
        ("peak", 1), ("triad", 1), ("update", 1), ("peak", 2), ("triad", 2), ("update", 2),
    ]  # fmt: skip
    assert all(len(limit["seconds"]) == 2 for limit in limits)
    assert {limit["size"] for limit in limits} == {4 * 2 * 101 * 67}


def test_the_last_rungs_alone_are_the_kernel_on_one_thread_and_on_several(team: Team) -> None:
    team.ours.close()
    team.ours = process("collected", "right", "shared", "reference")
    found = names(run(team, threads=(1, 2), last_only=True))
    assert found == [("right", 1), ("shared", 2), ("reference", 1), ("reference", 2)]


def test_a_slow_rung_takes_its_least_turns_and_no_more(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(climbing, "PATIENCE", 0.0)
    row = run(team, rounds=7).record["rows"][0]
    assert [turn is not None for turn in row["seconds"]] == [True] * 5 + [False] * 2


def test_each_round_begins_with_another(team: Team) -> None:
    said: list[str] = []
    run(team, rounds=4, say=said.append)
    starts = [next(line for line in said if line.startswith(f"round {n}/")) for n in (1, 2, 3, 4)]
    assert len({line.split(": ")[1] for line in starts}) > 1


def test_a_peer_is_a_row_of_its_own(team: Team) -> None:
    team.peers["torch", 1] = process("reference")
    *_, row = run(team).record["rows"]
    assert (row["by"], row["rung"], len(row["seconds"])) == ("torch", "reference", 2)


def test_a_peer_without_the_operation_is_named_so(team: Team) -> None:
    team.peers["torch", 1] = process()
    *_, row = run(team).record["rows"]
    assert (row["by"], row["offered"], row["seconds"]) == ("torch", False, [])


def test_a_peer_that_stops_is_left_out_with_its_reason(team: Team) -> None:
    team.peers["torch", 1] = process("failing")
    found = run(team, rounds=4).record
    assert team.left_out == {"torch": "toy has stopped: ArithmeticError: the toy is broken"}
    assert not team.peers
    assert found["rounds"] == 4
    assert found["rows"][-1]["seconds"][-1] is None
    assert all(found["rows"][0]["seconds"])


def test_a_peer_that_has_ended_at_the_gate_is_left_out(team: Team) -> None:
    team.peers["torch", 1] = process("reference")
    team.peers["torch", 1].process.kill()
    assert ("reference", 1) not in names(run(team))
    assert team.left_out == {"torch": "toy has stopped: killed by signal 9"}


def test_without_our_own_process_there_is_nothing_to_climb(team: Team) -> None:
    team.ours.process.kill()
    with pytest.raises(WorkerError, match="toy has stopped: killed by signal 9"):
        run(team)


def test_ctrl_c_keeps_the_rounds_that_are_whole(team: Team) -> None:
    team.peers["torch", 1] = process("interrupting")
    climbed = run(team, rounds=9)
    assert climbed.stopped
    found = climbed.record
    assert 0 < found["rounds"] < 9
    lengths = {len(row["seconds"]) for row in found["rows"] if row["seconds"]}
    assert lengths == {found["rounds"]}
