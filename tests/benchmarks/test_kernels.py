"""The kernel benchmark: what is run, shown and written, and what ends it."""

import contextlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import DEFAULT, Mock

import pytest

from benchmarks import kernels
from benchmarks.cases.sweeps import Sweep
from benchmarks.harness import analysis
from benchmarks.harness.analysis import SAME
from benchmarks.harness.figures import FORMAT, figures
from benchmarks.harness.rounds import DisagreementError
from benchmarks.plan import Plan

pytestmark = pytest.mark.slow  # Whole runs of the benchmark, in several processes.

CASE = {"operation": "softmax", "direction": "forward", "shape": "awkward"}
SMALL = Plan(["softmax"], ["awkward"], [1, 2], rounds=2)
TINY = Plan(["softmax"], ["awkward"], [1], rounds=1, trained_only=True)


@pytest.fixture(autouse=True)
def short(toys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure limits in one round, with small caches."""
    monkeypatch.setattr(kernels, "LIMIT_ROUNDS", 1)
    caches = {"L1": 1 << 14, "L2": 1 << 16}
    monkeypatch.setattr("benchmarks.machine.caches", lambda: caches)


def written(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_run_on_two_threads_alone_names_a_cache_for_one_thread_too(
    tmp_path: Path,
) -> None:
    found = kernels.run(replace(TINY, threads=[2]), tmp_path / "found.json")
    for case in found["cases"]:
        assert {*case["cache"].values()} <= {"L1", "L2", "memory"}
    assert "<svg" in (tmp_path / "found.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("whole") / "found.json"
    with pytest.MonkeyPatch.context() as monkeypatch:
        shorten(monkeypatch)
        found = kernels.run(replace(SMALL, csv=str(path.with_suffix(".csv"))), path)
    assert len(path.with_suffix(".csv").read_text().splitlines()) > len(found["cases"])
    assert path.with_suffix(".html").exists()
    assert written(path) == json.loads(json.dumps({"format": FORMAT, **figures(found)}))
    return found


def test_a_run_measures_both_directions_and_the_limits(whole: dict[str, Any]) -> None:
    assert whole["complete"]
    records = [(each["direction"], each["shape"], each["rounds"]) for each in whole["cases"]]
    assert records == [("forward", "awkward", 2), ("backward", "awkward", 2)]
    found = {(each["name"], each["threads"]) for each in whole["limits"]}
    assert found == {(name, threads) for threads in (1, 2) for name in ("peak", "triad", "BLAS")}
    # In a round at the start and another after the cases.
    assert {len(each["turns"]) for each in whole["limits"]} == {2}
    rows = [row for case in whole["cases"] for row in case["rows"] if "gain" in row]
    assert all(row["unresolved"] for row in rows)  # Two rounds are too few.
    assert {row["verdict"] for row in rows} == {SAME}


def test_a_peer_is_timed_with_each_number_of_threads_and_one_that_does_not_start_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(kernels.SOURCES, "torch", "helpers.toy_ladder")
    monkeypatch.setenv("TOY_RUNGS", "reference,wrong")
    monkeypatch.setitem(kernels.SOURCES, "llmc", "helpers.no_ladder")
    plan = replace(SMALL, trained_only=True, peers=["torch", "llmc"])
    found = kernels.run(plan, tmp_path / "a.json")
    reason = "No module named 'helpers.no_ladder'"
    said = capsys.readouterr()
    assert reason in found["left_out"]["llmc"]
    assert reason in " ".join(said.err.split())
    assert found["peers"]["torch ×2"] == {"threads": "2"}
    rows = [row for row in found["cases"][0]["rows"] if row["by"] == "torch"]
    assert [(row["rung"], row["threads"], "by_ours" in row) for row in rows] == [
        ("reference", 1, True), ("wrong", 1, False), ("reference", 2, True), ("wrong", 2, False),
    ]  # fmt: skip
    assert found["complete"]  # A wrong peer is only shown.
    assert re.search(r"wrong is WRONG: probs\[", said.out)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_ctrl_c_and_errors_keep_what_was_measured(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_case = Mock(wraps=kernels.run_case, side_effect=[DEFAULT, error])
    monkeypatch.setattr(kernels, "run_case", run_case)
    with pytest.raises(OSError) if error is OSError else contextlib.nullcontext():  # noqa: PT011
        kernels.run(TINY, tmp_path / "found.json")
    found = written(tmp_path / "found.json")
    assert (found["complete"], len(found["cases"])) == (False, 1)


def test_a_sweep_shows_and_draws_the_sizes_that_were_done_before_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_case = Mock(wraps=kernels.run_case, side_effect=[DEFAULT, DEFAULT, KeyboardInterrupt])
    monkeypatch.setattr(kernels, "run_case", run_case)
    plan = replace(TINY, shapes=["cpu"], sweep=Sweep((), (7, 8, 9, 10)))
    found = kernels.run(plan, tmp_path / "found.json")
    assert [case["sizes"] for case in found["cases"]] == [{"N": 768, "V": 7}, {"N": 768, "V": 8}]
    said = capsys.readouterr().out
    assert "softmax forward: GB/s at each size V; N 768" in said
    assert re.findall(r"^(\d+) ", said, re.MULTILINE) == ["7", "8"]
    kept = [tmp_path / f"found.{kind}" for kind in ("json", "html", "svg")]
    assert written(kept[0])["options"]["sweep"]["numbers"] == [7, 8, 9, 10]
    assert ">softmax forward, GB/s<" in kept[2].read_text()
    assert "data:image/svg+xml;base64," in kept[1].read_text()
    kept[1].unlink()
    with pytest.raises(ValueError, match="svg exists already"):
        kernels.new_files(kept[0])


def test_a_wrong_rung_is_named_at_the_end_when_all_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_RUNGS", "right,wrong,failing")
    with pytest.raises(
        DisagreementError, match=r"wrong, softmax forward awkward: probs\["
    ) as error:
        kernels.run(replace(SMALL, ladders="helpers.toy_ladder"), tmp_path / "found.json")
    assert "failing, softmax forward awkward: ArithmeticError" in str(error.value)
    assert len(written(tmp_path / "found.json")["cases"]) == 2


def test_why_there_are_no_counters_is_told_once_and_nothing_is_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "why_none", lambda: "no such processor")
    monkeypatch.setattr("benchmarks.candidates.read_counters", Mock(side_effect=AssertionError))
    assert kernels.run(replace(TINY, counters=True), None)["complete"]
    assert capsys.readouterr().err.count("no counters: no such processor\n") == 1


def test_a_case_that_seems_slower_is_measured_again(
    whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspects = Mock(return_value=[("softmax", "backward", "awkward")])
    monkeypatch.setattr("benchmarks.harness.compare.suspects", suspects)
    found = kernels.run(TINY, tmp_path / "found.json", whole)
    suspects.assert_called_once_with(whole, found)
    assert [each["direction"] for each in found["again"]] == ["backward"]
    assert found["seed"] != whole["seed"]
    assert whole["again"] == []


def test_with_cold_caches_everything_is_measured_cold(tmp_path: Path) -> None:
    found = kernels.run(replace(TINY, cache="cold"), tmp_path / "found.json")
    assert found["options"]["cache"] == "cold"
    where = [limit["where"] for limit in found["limits"] if limit["name"] == "triad"]
    assert where == ["memory"]
    (record, _) = found["cases"]
    assert (record["caches"], record["cache"]) == ("cold", {"1": "memory"})
    (row,) = (row for row in record["rows"] if row["rung"] == "vectors")
    assert row["seconds"].median > 0


def test_a_rung_that_is_faster_than_the_machine_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("MOST", 1e-9), ("ENOUGH", 1), ("DISTURBED", 1e9)):
        monkeypatch.setattr(analysis, name, value)
    with pytest.raises(DisagreementError, match=r"vectors, softmax forward awkward: runs at .* of"):
        kernels.run(TINY, tmp_path / "found.json")
