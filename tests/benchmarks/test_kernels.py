"""The kernel benchmark: what is run, shown and written, and what ends it."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import kernels
from benchmarks.harness.figures import figures
from benchmarks.harness.rounds import Comparison, DisagreementError
from benchmarks.harness.session import Session
from benchmarks.harness.worker import Process, WorkerError
from benchmarks.kernels import Plan, Processes, run_case

pytestmark = pytest.mark.slow  # Whole runs of the benchmark, in several processes.

SMALL = Plan(["softmax"], ["awkward"], [1, 2], rounds=2)
CASE = ("softmax", "forward", "awkward")


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


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Our ladder has a right rung, a wrong one, one that is too slow, and one for threads."""
    found = Processes(process("right", "wrong", "unable", "shared"))
    yield found
    for each in (found.ours, *found.peers.values()):
        each.close()


def process(*rungs: str) -> Process:
    options = {"source": "helpers.toy_ladder", "seed": 0, "options": {"rungs": rungs}}
    return Process("toy", kernels.RUNGS, options, 1)


def compare(processes: Processes, threads: tuple[int, ...] = (1,), **others: Any) -> Comparison:
    plan = Plan([], [], threads, rounds=others.pop("rounds", 2), **others)
    return run_case(processes, CASE, plan, lambda _: None)


def names(comparison: Comparison) -> list[tuple[str, int]]:
    return [(row["rung"], row["threads"]) for row in comparison.record["rows"]]


def test_every_rung_has_a_row_and_limits_and_controls_take_turns(processes: Processes) -> None:
    found = compare(processes, threads=(1, 2)).record
    rows = found["rows"]
    expected = [("right", 1, 2), ("wrong", 1, 0), ("unable", 1, 0), ("shared", 2, 2)]
    assert [(row["rung"], row["threads"], len(row["turns"])) for row in rows] == expected
    assert rows[1]["wrong"]
    assert not rows[2]["able"]
    controls = [(each["rung"], each["threads"], len(each["turns"])) for each in found["controls"]]
    assert controls == [("right", 1, 2), ("shared", 2, 2)]
    limits = [(each["name"], each["threads"], len(each["turns"])) for each in found["limits"]]
    assert limits == [(name, n, 2) for n in (1, 2) for name in ("peak", "triad", "update")]
    assert {limit["size"] for limit in found["limits"]} == {4 * 2 * 101 * 67}


def test_the_last_rungs_are_the_kernel_on_one_thread_and_on_several(processes: Processes) -> None:
    processes.ours.close()
    processes.ours = process("collected", "right", "shared", "reference")
    found = compare(processes, threads=(1, 2), last_only=True)
    assert names(found) == [("right", 1), ("shared", 2), ("reference", 1), ("reference", 2)]
    assert [each.name for each in found.controls] == ["right", "shared"]


def test_a_peer_is_a_row_of_its_own_also_without_the_operation(processes: Processes) -> None:
    processes.peers["torch", 1], processes.peers["numpy", 1] = process("reference"), process()
    *_, row, absent = compare(processes).record["rows"]
    assert (row["by"], row["rung"], len(row["turns"])) == ("torch", "reference", 2)
    assert (absent["by"], absent["offered"], absent["turns"]) == ("numpy", False, [])


def test_a_peer_that_exits_is_left_out_and_the_rounds_go_on(processes: Processes) -> None:
    processes.peers["torch", 1] = process("failing")
    found = compare(processes, rounds=4)
    assert found.left_out == {"torch": "toy exited: ArithmeticError: the toy is broken"}
    assert found.record["rounds"] == 4
    assert found.record["rows"][-1]["turns"][-1] is None


def test_a_peer_that_exits_takes_no_part_in_later_cases(processes: Processes) -> None:
    processes.peers["torch", 1] = process("failing")
    processes.peers["torch", 2] = process("reference")
    run = Session("kernels", {})
    with run.progress.status:
        kernels.run_cases(processes, Plan([], [], (1,), rounds=4), [CASE], run, "cases", quiet=True)
    assert processes.peers == {}
    assert list(run.found["left_out"]) == ["torch"]


def test_without_our_own_process_there_is_no_comparison(processes: Processes) -> None:
    processes.ours.process.kill()
    with pytest.raises(WorkerError, match="toy exited: killed by signal 9"):
        compare(processes)


def test_ctrl_c_keeps_the_complete_rounds(processes: Processes) -> None:
    processes.peers["torch", 1] = process("interrupting")
    found = compare(processes, rounds=9)
    assert found.stopped
    assert 0 < found.record["rounds"] < 9


# A whole run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("whole") / "found.json"
    with pytest.MonkeyPatch.context() as monkeypatch:
        shorten(monkeypatch)
        found = kernels.run(SMALL, path)
    assert path.with_suffix(".html").exists()
    assert written(path) == json.loads(json.dumps(figures(found)))
    return found


def test_a_run_measures_both_directions_and_the_limits(whole: dict[str, Any]) -> None:
    assert whole["complete"]
    records = [(each["direction"], each["shape"], each["rounds"]) for each in whole["cases"]]
    assert records == [("forward", "awkward", 2), ("backward", "awkward", 2)]
    levels = [("peak", None), ("BLAS", None)]
    levels += [("triad", where) for where in ("L1", "L2", "memory")]
    found = {(each["name"], each["where"], each["threads"]) for each in whole["limits"]}
    assert found == {(*level, threads) for level in levels for threads in (1, 2)}
    assert all(each["rate"].median > 0 for each in whole["limits"])


def run_with_peer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, threads: list[int], **options: Any
) -> dict[str, Any]:
    """Run the toy ladder as the peer torch."""
    monkeypatch.setattr(kernels, "source_of", lambda _: "helpers.toy_ladder")  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    monkeypatch.setattr(kernels, "options_of", lambda *_: options)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    plan = Plan(["softmax"], ["awkward"], threads, 2, last_only=True, peers=["torch"])
    return kernels.run(plan, tmp_path / "a.json")


def test_a_peer_that_does_not_start_is_named_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run_with_peer(monkeypatch, tmp_path, [1], absent=True)
    reason = "toys are not installed: pip install toys"
    assert reason in found["left_out"]["torch"]
    assert reason in " ".join(capsys.readouterr().err.split())


def test_a_peer_is_timed_with_each_number_of_threads_and_says_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run_with_peer(monkeypatch, tmp_path, [1, 2], rungs=["reference"])
    assert found["peers"]["torch ×2"]["environment"] == "2"
    rows = [row for row in found["cases"][0]["rows"] if row["by"] == "torch"]
    assert [row["threads"] for row in rows] == [1, 2]
    assert all(row["by_ours"] for row in rows)


def test_a_wrong_peer_is_shown_and_the_run_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with_peer(monkeypatch, tmp_path, [1], rungs=["wrong"])["complete"]
    assert re.search(r"wrong is WRONG: probs\[", capsys.readouterr().out)


TINY = Plan(["softmax"], ["awkward"], [1], rounds=1, last_only=True)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_ctrl_c_and_errors_keep_what_was_measured(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_case, calls = kernels.run_case, list[int]()

    def fail(*arguments: Any) -> Comparison:
        calls.append(1)
        if len(calls) == 2:
            raise error
        return run_case(*arguments)

    monkeypatch.setattr(kernels, "run_case", fail)
    with pytest.raises(OSError) if error is OSError else contextlib.nullcontext():  # noqa: PT011
        kernels.run(TINY, tmp_path / "found.json")
    found = written(tmp_path / "found.json")
    assert (found["complete"], len(found["cases"])) == (False, 1)


def test_a_wrong_rung_is_named_at_the_end_when_all_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "LADDERS", "helpers.toy_ladder")
    monkeypatch.setattr(kernels, "OPTIONS", {"rungs": ["right", "wrong"]})
    with pytest.raises(DisagreementError, match=r"^WRONG: wrong, softmax forward awkward$"):
        kernels.run(SMALL, tmp_path / "found.json")
    assert len(written(tmp_path / "found.json")["cases"]) == 2
    assert re.search(r"wrong is WRONG: probs\[", capsys.readouterr().out)


def test_a_case_that_seems_slower_is_measured_again(
    whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def suspects(old: Any, new: dict[str, Any]) -> list[tuple[str, str, str]]:
        asked.extend([old, len(new["cases"])])
        return [("softmax", "backward", "awkward")]

    monkeypatch.setattr("benchmarks.harness.compare.suspects", suspects)
    found = kernels.run(TINY, tmp_path / "found.json", whole)
    assert asked == [whole, 2]
    assert [each["direction"] for each in found["again"]] == ["backward"]
    assert found["seed"] != whole["seed"]
    assert whole["again"] == []


def test_the_arrays_of_a_triad_fit_the_cache_that_it_is_named_after() -> None:
    caches = {"L1": 1000, "L2": 8000, "L3": 64_000}
    sizes = {each["where"]: each["size"] for each in kernels.working_sets(caches, 2)}
    assert sizes == {None: 0, "L1": 1000, "L2": 8000, "L3": 32_000, "memory": 256_000}
