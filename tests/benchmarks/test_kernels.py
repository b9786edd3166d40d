"""The kernel benchmark: what is run, shown and written, and what ends it."""

import contextlib
import json
import re
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import DEFAULT, Mock

import pytest

from benchmarks import kernels
from benchmarks.cases.sweeps import Sweep
from benchmarks.harness import analysis
from benchmarks.harness.analysis import BANDWIDTHS, SAME
from benchmarks.harness.figures import FORMAT, figures
from benchmarks.harness.process import Process
from benchmarks.harness.rounds import Comparison, DisagreementError
from benchmarks.kernels import Peers, Plan
from benchmarks.mine.source import find_all
from benchmarks.worker.counters import why_none

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


# One case


@contextlib.contextmanager
def process(*rungs: str) -> Generator[Process]:
    options = {"source": "helpers.toy_ladder", "seed": 0, "options": {"rungs": rungs}}
    with closing(Process("toy", kernels.RUNGS, options, 1)) as found:
        yield found


def compare(ours: Process, peers: Peers, plan: Plan, **left_out: str) -> Comparison:
    found = Comparison({**CASE}, left_out)
    with closing(Process("limits", kernels.MACHINE, {}, 2)) as limits, closing(found):
        processes = kernels.Processes(ours, limits, peers)
        kernels.run_case(processes, found, plan, lambda _: None)
    return found


def rows_of(record: dict[str, Any], part: str = "rows") -> list[tuple[str, int, int]]:
    rows = record[part]
    return [(row.get("rung") or row["name"], row["threads"], len(row["turns"])) for row in rows]


def test_every_rung_has_a_row_and_limits_and_controls_take_turns() -> None:
    with process("right", "wrong", "unable", "shared") as ours:
        found = compare(ours, {}, SMALL).record
    assert rows_of(found) == [("right", 1, 2), ("wrong", 1, 0), ("unable", 1, 0), ("shared", 2, 2)]
    assert found["rows"][1]["wrong"]
    assert not found["rows"][2]["able"]
    assert rows_of(found, "controls") == [("right", 1, 2), ("shared", 2, 2)]
    limits = [(name, n, 2) for n in (1, 2) for name in ("peak", *BANDWIDTHS)]
    assert rows_of(found, "limits") == limits
    assert {limit["size"] for limit in found["limits"]} == {4 * 2 * 101 * 67}


def test_the_trained_rungs_are_the_kernel_on_one_thread_and_on_several() -> None:
    with process("wrong", "right", "shared", "reference") as ours:
        found = compare(ours, {}, replace(SMALL, trained_only=True)).record
    trained = [("right", 1, 2), ("shared", 2, 2)]
    assert rows_of(found) == [*trained, ("reference", 1, 2), ("reference", 2, 2)]
    assert rows_of(found, "controls") == trained


def test_a_rung_after_those_of_training_is_no_control() -> None:
    with process("right", "later", "shared", "later shared") as ours:
        found = compare(ours, {}, SMALL).record
    assert [name for name, *_ in rows_of(found)] == ["right", "later", "shared", "later shared"]
    assert rows_of(found, "controls") == [("right", 1, 2), ("shared", 2, 2)]


def test_ours_and_each_peer_have_a_control_for_each_number_of_threads_and_one_a_peak() -> None:
    with process("shared") as ours, process("reference") as torch, process("wrong") as numpy:
        peers = {("torch", 1): torch, ("torch", 2): torch, ("numpy", 2): numpy}
        found = compare(ours, peers, replace(SMALL, threads=[2], rounds=1)).record
    controls = [(each["by"], *row) for each, row in zip(
        found["controls"], rows_of(found, "controls"), strict=True)]  # fmt: skip
    assert controls == [
        ("ours", "shared", 2, 1), ("torch", "reference", 1, 1), ("torch", "reference", 2, 1)
    ]  # fmt: skip
    with process("shared") as ours:
        found = compare(ours, {}, replace(SMALL, threads=[2], rounds=1)).record
    assert ("peak", 1, 1) in rows_of(found, "limits")


def test_peers_have_rows_and_a_rung_that_fails_ends_alone() -> None:
    plan = replace(TINY, rounds=4)
    with (
        process("right") as ours, process("reference") as torch, process() as numpy,
        process("failing") as llmc,
    ):  # fmt: skip
        found = compare(ours, {("torch", 1): torch, ("numpy", 1): numpy, ("llmc", 1): llmc}, plan)
        _, row, absent, failed = found.record["rows"]
        assert (row["by"], row["rung"], len(row["turns"])) == ("torch", "reference", 4)
        assert (absent["by"], absent["offered"], absent["turns"]) == ("numpy", False, [])
        assert found.record["rounds"] == 4
        assert failed["turns"][-1] is None
        assert failed["failed"] == "ArithmeticError: the toy is broken"
        assert "in failing" in failed["traceback"]
        llmc.process.kill()
        found = compare(ours, {("llmc", 1): llmc}, TINY)
        assert found.left_out == {"llmc": "killed by signal 9 (SIGKILL)"}
        # It takes no part in later cases.
        later = compare(ours, {("llmc", 2): torch}, plan, **found.left_out)
        assert rows_of(later.record) == [("right", 1, 4)]


def test_the_machine_code_of_each_rung_but_those_of_peers_is_looked_at() -> None:
    with process("right", "wrong") as ours, process("reference") as torch:
        plan = replace(SMALL, threads=[1], rounds=1, asm=True)
        rows = compare(ours, {("torch", 1): torch}, plan).record["rows"]
    nothing: dict[str, Any] = {"packed": None, "loop": [], "loop_flops": 0}
    looked_at = [{name: row[name] for name in nothing if name in row} for row in rows]
    assert looked_at == [nothing, {}, {}]  # They are NumPy.


def test_each_rung_is_counted_after_the_rounds() -> None:
    with process("right", "wrong", "reference") as ours:
        found = compare(ours, {}, replace(SMALL, threads=[1], rounds=1, counters=True))
    rows = {row["rung"]: row.get("counters", {}) for row in found.record["rows"]}
    if reason := why_none():  # Many virtual machines have none.
        assert found.left_out == {"counters": f"no counters: {reason}"}
        assert not any(rows.values())
    else:
        assert rows.pop("wrong", {}) == {}
        assert all(counted["instructions"] > 1000 for counted in rows.values())


KERNELS = """
import os
import signal

import numba
import numpy as np

def good(x, probs):
    np.exp(x - x.max(axis=1, keepdims=True), out=probs)
    probs /= probs.sum(axis=1, keepdims=True)

def shared(x, threads):
    return np.exp(x - x.max(1, keepdims=True)) / np.exp(x - x.max(1, keepdims=True)).sum(1)[:, None]

def wrong(x, probs):
    probs[...] = 0.5

def loud(x, probs):
    print("a line " * 99)
    good(x, probs)

def raising(x, probs):
    return {}["nothing"]

def crashing(x, probs):
    os.kill(os.getpid(), signal.SIGSEGV)
"""


def test_kernels_of_the_user_have_rows_and_one_that_fails_ends_only_itself(tmp_path: Path) -> None:
    file, bad = tmp_path / "my.py", tmp_path / "bad.py"
    file.write_text(KERNELS)
    bad.write_text("1 / 0\ndef unborn(x, probs): ...")
    names = ["good", "shared", "wrong", "loud", "raising", "crashing"]
    texts = [*(f"{file}:{name}" for name in names), f"{bad}:unborn"]
    with process("right") as ours:
        mine = find_all(texts, ["softmax"])
        found = compare(ours, {}, replace(SMALL, mine=mine)).record
    rows = {row["rung"]: row for row in found["rows"] if row["by"] == "mine"}
    timed = [("my.py:good", 1, 2), ("my.py:shared", 1, 2), ("my.py:shared", 2, 2)]
    assert [each for each in rows_of(found) if "good" in each[0] or "shared" in each[0]] == timed
    assert [each for each in rows_of(found, "controls") if "my.py" in each[0]] == [
        ("my.py:loud", 1, 2), ("my.py:shared", 2, 2),
    ]  # fmt: skip
    assert len(rows["my.py:loud"]["turns"]) == 2
    assert "probs[" in rows["my.py:wrong"]["wrong"]
    assert "SIGSEGV" in rows["my.py:crashing"]["failed"]
    assert "ZeroDivisionError" in rows["bad.py:unborn"]["failed"]
    assert 'bad.py", line 1' in rows["bad.py:unborn"]["traceback"]
    assert "KeyError" in rows["my.py:raising"]["wrong"]
    assert "in raising" in rows["my.py:raising"]["traceback"]


def test_a_kernel_of_the_user_that_hangs_is_left_out_of_the_other_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "my.py"
    file.write_text(f"{KERNELS}\ndef hanging(x, threads):\n    while True: ...")
    with process("right") as ours:
        case: dict[str, Any] = {**CASE}
        ours.ask("begin", **case)
        plan = replace(SMALL, mine=find_all([f"{file}:hanging", f"{file}:good"], ["softmax"]))
        comparison = Comparison({**CASE})
        monkeypatch.setattr(kernels, "OPEN_TIMEOUT", 3.0)
        with contextlib.closing(comparison):
            kernels.open_mine(ours, comparison, plan, lambda _: None)
    hanging, good = comparison.candidates  # The first is not tried on two threads.
    assert hanging.about["failed"] == "no answer within 3 s"
    assert good.timed
    left = kernels.without_hanging(plan, comparison)
    assert [kernel.name for kernel in left.mine] == ["my.py:good"]
    assert comparison.left_out["my.py:hanging"].startswith("it hangs")


# A whole run


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
    monkeypatch.setattr(kernels, "read_counters", Mock(side_effect=AssertionError))
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
