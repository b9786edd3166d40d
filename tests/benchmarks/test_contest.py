"""A whole contest: the tables it shows, the file it writes, and what Ctrl-C leaves of both."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toys import TINY, side

from benchmarks import attention, contest, rounds, train
from benchmarks.contest import Contest

NUMPY = {"backend": "numpy", "matmul": "numba"}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns are short, and workers find the toys."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setattr(rounds, "TURN_SECONDS", 0.01)


def run(path: Path, *contests: Contest) -> tuple[bool, dict[str, Any]]:
    complete = contest.run("train", contests, 1, {"backend": "numpy"}, path)
    return complete, json.loads(path.read_text(encoding="utf-8"))


def test_a_contest_of_tiny_training_runs_to_its_end(tmp_path: Path) -> None:
    tiny = train.contest(TINY, 1, None, NUMPY, pytorch=False)
    complete, written = run(tmp_path / "all.json", tiny)
    (found,) = written["contests"]
    assert complete
    assert written["complete"]
    assert (found["name"], found["rounds"], found["about"]["n_embd"]) == ("tiny", 2, 12)
    assert found["sides"]["ours"]["summary"]["share_of_peak"] > 0


def test_ctrl_c_writes_what_there_is_and_begins_nothing_else(tmp_path: Path) -> None:
    toys = Contest("toys", {}, [side("a", interrupts_at=40)], 1000, 1)
    complete, written = run(tmp_path / "all.json", toys, replace(toys, name="next"))
    assert not complete
    assert not written["complete"]
    assert [found["name"] for found in written["contests"]] == ["toys"]


def test_an_error_in_a_later_contest_does_not_lose_the_earlier(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    good, bad = (
        Contest(name, {}, [side(name, fails_at=fails_at)], 1, 1)
        for name, fails_at in (("good", 0), ("bad", 1))
    )
    with pytest.raises(rounds.WorkerError):
        run(path, good, bad)
    assert [found["name"] for found in json.loads(path.read_text())["contests"]] == ["good"]


def test_a_file_that_exists_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    path.write_text("as it was")
    with pytest.raises(ValueError, match=r"all\.json exists already, and nothing is overwritten"):
        contest.check_json(path)
    assert path.read_text() == "as it was"


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be written: No such file or directory"):
        contest.check_json(tmp_path / "nowhere" / "all.json")


def test_looking_whether_a_file_can_be_written_leaves_none(tmp_path: Path) -> None:
    contest.check_json(tmp_path / "all.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("pytorch", "names"), [(False, ["ours"]), (True, ["ours", "eager", "compile"])]
)
def test_the_sides_of_training(pytorch: bool, names: list[str]) -> None:
    sides = train.contest(TINY, 1, None, NUMPY, pytorch).sides
    assert [each.name for each in sides] == names


def test_attention_counts_the_tokens_of_all_texts() -> None:
    sizes = {"batch": 3, "time": 5, "n_head": 2, "head_size": 4}
    assert attention.contest(sizes, 1, None, "numpy", pytorch=True).tokens == 15
