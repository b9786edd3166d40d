"""The kernel benchmark as a whole: what is run, what is shown and written, and what ends it."""

import contextlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from benchmarks import figures, kernels, tasks
from benchmarks.climb import Climb
from benchmarks.kernels import Plan
from benchmarks.rounds import DisagreementError

SMALL = Plan(["softmax"], ["awkward"], [1, 2], rounds=2)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits are found in one round, in small caches."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setattr(kernels, "LIMIT_ROUNDS", 1)
    caches = {"L1": 1 << 14, "L2": 1 << 16}
    monkeypatch.setattr("benchmarks.machine.caches", lambda: caches)


def toys(_: str) -> str:
    return "toy_ladder"


def always(options: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    def options_of(*_: Any) -> dict[str, Any]:
        return options

    return options_of


def written(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


class Run(NamedTuple):
    """One that came to its end: what it returned, what it wrote, what it showed."""

    found: dict[str, Any]
    written: dict[str, Any]
    shown: str


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path, shown = tmp_path_factory.mktemp("whole") / "found.json", io.StringIO()
    with pytest.MonkeyPatch.context() as monkeypatch, contextlib.redirect_stdout(shown):
        shorten(monkeypatch)
        found = kernels.run(SMALL, path)
    return Run(found, written(path), shown.getvalue())


def test_a_run_measures_both_directions_and_writes_what_it_returns(whole: Run) -> None:
    assert whole.found["complete"]
    tasks = whole.found["tasks"]
    names = [(each["operation"], each["direction"], each["shape"]) for each in tasks]
    assert names == [("softmax", "forward", "awkward"), ("softmax", "backward", "awkward")]
    assert all(each["rounds"] == 2 for each in tasks)
    assert whole.written == json.loads(json.dumps(figures.figures(whole.found)))


def test_what_was_measured_stands_beside_it(whole: Run) -> None:
    about = ("cpu", "vector_bits", "affinity", "load", "versions", "blas", "commit", "caches")
    assert set(about) <= set(whole.found["machine"])
    assert whole.found["options"]["threads"] == [1, 2]
    assert whole.found["stories"]["softmax"]


def test_the_limits_are_measured_for_each_cache_and_number_of_threads(whole: Run) -> None:
    limits = whole.found["limits"]
    levels = [("peak", None), ("BLAS", None)]
    levels += [("triad", where) for where in ("L1", "L2", "memory")]
    kinds = {(each["name"], each["where"], each["threads"]) for each in limits}
    assert kinds == {(*level, threads) for level in levels for threads in (1, 2)}
    assert all(each["rate"]["median"] > 0 for each in limits)


def test_the_table_shows_every_rung(whole: Run) -> None:
    for rung in ("Python", "NumPy", "three passes", "online", "vectors", "parallel ×2"):
        assert re.search(rf"^ *{re.escape(rung)} +\d", whole.shown, re.MULTILINE), rung
    assert "A/A: parallel ×2 against itself" in " ".join(whole.shown.split())


def test_every_run_has_inputs_of_its_own(whole: Run, tmp_path: Path) -> None:
    assert kernels.run(SMALL, tmp_path / "other.json")["seed"] != whole.found["seed"]


def test_a_peer_that_does_not_start_is_named_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "source_of", toys)
    monkeypatch.setattr(kernels, "options_of", always({"absent": True}))
    found = kernels.run(
        Plan(["softmax"], ["awkward"], [1], 2, peers=["torch"]), tmp_path / "a.json"
    )
    reason = "toys are not installed: pip install toys"
    assert reason in found["left_out"]["torch"]
    assert reason in " ".join(capsys.readouterr().out.split())


def test_a_peer_climbs_beside_us_and_says_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "source_of", toys)
    monkeypatch.setattr(kernels, "options_of", always({"rungs": ["reference"]}))
    found = kernels.run(
        Plan(["softmax"], ["awkward"], [1, 2], 2, peers=["torch"]), tmp_path / "a.json"
    )
    assert found["peers"]["torch ×2"]["environment"] == "2"
    rows = [row for row in found["tasks"][0]["rows"] if row["by"] == "torch"]
    assert [row["threads"] for row in rows] == [1, 2]
    assert all(row["summary"]["by_ours"] for row in rows)


def stopping(after: int) -> Callable[..., Climb]:
    """A climb that is stopped by Ctrl-C in its last task."""
    original = kernels.climb
    calls: list[int] = []

    def climb(*arguments: Any) -> Climb:
        found = original(*arguments)
        calls.append(1)
        found.stopped = len(calls) == after
        return found

    return climb


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "climb", stopping(after=1))
    path = tmp_path / "found.json"
    assert not kernels.run(SMALL, path)["complete"]
    assert not written(path)["complete"]
    assert len(written(path)["tasks"]) == 1


def test_an_error_keeps_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = kernels.climb
    calls: list[int] = []

    def climb(*arguments: Any) -> Climb:
        calls.append(1)
        if len(calls) == 2:
            raise OSError("the disk is on fire")
        return original(*arguments)

    monkeypatch.setattr(kernels, "climb", climb)
    with pytest.raises(OSError, match="the disk is on fire"):
        kernels.run(SMALL, tmp_path / "found.json")
    assert len(written(tmp_path / "found.json")["tasks"]) == 1


def test_who_is_wrong_is_named_at_the_end_when_all_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "LADDERS", "toy_ladder")
    monkeypatch.setattr(kernels, "OPTIONS", {"rungs": ["right", "wrong"]})
    path = tmp_path / "found.json"
    with pytest.raises(DisagreementError, match=r"^WRONG: wrong, softmax forward awkward$"):
        kernels.run(SMALL, path)
    assert len(written(path)["tasks"]) == 2
    assert re.search(r"wrong is WRONG: probs\[", capsys.readouterr().out)


def test_a_peer_that_is_wrong_is_shown_and_no_failure_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "source_of", toys)
    monkeypatch.setattr(kernels, "options_of", always({"rungs": ["wrong"]}))
    found = kernels.run(
        Plan(["softmax"], ["awkward"], [1], 2, peers=["torch"]), tmp_path / "a.json"
    )
    assert found["complete"]
    assert re.search(r"wrong is WRONG: probs\[", capsys.readouterr().out)


def test_what_seems_slower_than_before_is_measured_again(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def suspects(old: Any, new: dict[str, Any]) -> list[tuple[str, str, str]]:
        asked.extend([old, len(new["tasks"])])
        return [("softmax", "backward", "awkward")]

    monkeypatch.setattr("benchmarks.compare.suspects", suspects)
    found = kernels.run(SMALL, tmp_path / "found.json", whole.found)
    assert asked == [whole.found, 2]
    assert found["complete"]
    assert [each["direction"] for each in found["again"]] == ["backward"]
    assert written(tmp_path / "found.json")["again"]


def test_without_a_run_before_nothing_is_measured_again(whole: Run) -> None:
    assert whole.found["again"] == []


def test_results_go_to_a_folder_of_their_own_under_the_time() -> None:
    path = kernels.new_path()
    assert path.parent == kernels.RESULTS
    assert re.fullmatch(r"kernels-\d{8}-\d{6}\.json", path.name)


def test_a_plan_goes_through_operations_directions_and_shapes() -> None:
    plan = Plan(["softmax"], ["cpu", "gpt2"], [1], 1)
    assert plan.tasks == [
        ("softmax", direction, shape)
        for direction in tasks.directions("softmax")
        for shape in ("cpu", "gpt2")
    ]


def test_a_triad_s_working_set_fits_the_cache_that_it_is_named_after() -> None:
    caches = {"L1": 1000, "L2": 8000, "L3": 64_000}
    sizes = {each["where"]: each["size"] for each in kernels.working_sets(caches, 2)}
    assert sizes == {None: 0, "L1": 1000, "L2": 8000, "L3": 32_000, "memory": 256_000}


@pytest.mark.parametrize(
    ("seconds", "said"), [(12.4, "about 12 s left"), (200.0, "about 3 min left")]
)
def test_time_left_is_said_in_round_numbers(seconds: float, said: str) -> None:
    assert kernels.minutes(seconds) == said
