"""The candidates of a case: which there are, and what ends them."""

import contextlib
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import candidates, kernels
from benchmarks.candidates import Peers
from benchmarks.harness.analysis import BANDWIDTHS
from benchmarks.harness.process import Process
from benchmarks.harness.rounds import Comparison
from benchmarks.mine.source import find_all
from benchmarks.plan import Plan
from benchmarks.worker.counters import why_none

# Whole cases, in several processes.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("toys")]

CASE = {"operation": "softmax", "direction": "forward", "shape": "awkward"}
SMALL = Plan(["softmax"], ["awkward"], [1, 2], rounds=2)
TINY = Plan(["softmax"], ["awkward"], [1], rounds=1, trained_only=True)


@contextlib.contextmanager
def process(*rungs: str) -> Generator[Process]:
    options = {"source": "helpers.toy_ladder", "seed": 0, "options": {"rungs": rungs}}
    with closing(Process("toy", candidates.RUNGS, options, 1)) as found:
        yield found


def compare(ours: Process, peers: Peers, plan: Plan, **left_out: str) -> Comparison:
    found = Comparison({**CASE}, left_out)
    with closing(Process("limits", candidates.MACHINE, {}, 2)) as limits, closing(found):
        processes = candidates.Processes(ours, limits, peers)
        candidates.run_case(processes, found, plan, lambda _: None)
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
        monkeypatch.setattr(candidates, "OPEN_TIMEOUT", 3.0)
        with contextlib.closing(comparison):
            candidates.open_mine(ours, comparison, plan, lambda _: None)
    hanging, good = comparison.candidates  # The first is not tried on two threads.
    assert hanging.about["failed"] == "no answer within 3 s"
    assert good.timed
    left = kernels.without_hanging(plan, comparison)
    assert [kernel.name for kernel in left.mine] == ["my.py:good"]
    assert comparison.left_out["my.py:hanging"].startswith("it hangs")
