"""Two results: what is slower, what is shown, what is refused, and the exit code."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.kernel_results import (
    VECTORS,
    again,
    everything,
    kernels,
    named,
    result,
    shown,
    slow,
    slowed,
    verdicts,
)

from benchmarks import __main__ as command
from benchmarks import kernels as benchmark
from benchmarks.harness import compare
from benchmarks.harness.analysis import FASTER, SLOWER
from tinygpt_np.machine import processor_name


def test_a_result_is_the_same_as_itself() -> None:
    assert verdicts(result(), result()) == {}


def test_a_kernel_that_takes_longer_is_found_and_nothing_else() -> None:
    assert verdicts(result(), slowed(result(), 1.3, named("vectors"))) == {VECTORS: SLOWER}


def test_a_kernel_that_takes_less_is_found_and_nothing_else() -> None:
    assert verdicts(result(), slowed(result(), 0.7, named("vectors"))) == {VECTORS: FASTER}


def test_less_than_the_margin_is_nothing() -> None:
    assert verdicts(result(), slowed(result(), 1.09, named("vectors"))) == {}


def test_a_change_of_all_kernels_is_seen() -> None:
    found = verdicts(result(), slowed(result(), 1.3, kernels))
    assert len(found) == 16
    assert set(found.values()) == {SLOWER}


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_another_pace_of_the_machine_changes_no_kernel(factor: float) -> None:
    assert verdicts(result(), slowed(result(), factor, everything)) == {}


@pytest.mark.parametrize("name", ["Python", "NumPy", "PyTorch", "peak"])
def test_what_is_no_kernel_of_ours_has_no_verdict(name: str) -> None:
    assert verdicts(result(), slowed(result(), 3.0, named(name))) == {}


def test_rows_with_several_threads_have_no_verdict() -> None:
    assert verdicts(result(), slowed(result(), 3.0, named("parallel"))) == {}


def test_rows_that_differ_everywhere_hide_a_difference() -> None:
    new, rng = result(), np.random.default_rng(0)
    for case in new["cases"]:
        for row in (*case["limits"], *case["rows"]):
            factor = float(np.exp(rng.uniform(-0.25, 0.25)))
            slow(row, factor)
    assert verdicts(result(), new) == {}


def test_intervals_that_overlap_say_nothing() -> None:
    old, new = result(), slowed(result(), 1.4, named("vectors"))
    old["cases"][0]["rows"][3]["seconds"][2] = 3e-4
    assert verdicts(old, new) == {}


def test_few_rounds_say_nothing() -> None:
    old, new = result(), slowed(result(), 2.0, named("vectors"))
    for found in (old, new):
        found["cases"][0]["rows"][3]["seconds"][3] = 0.875
    assert verdicts(old, new) == {}


def test_what_is_slower_again_is_slower() -> None:
    new = slowed(again(result()), 1.3, named("vectors"))
    assert verdicts(result(), new) == {VECTORS: SLOWER}


def test_what_is_not_slower_again_is_not() -> None:
    new = again(result())
    new["cases"] = slowed(result(), 1.3, named("vectors"))["cases"]
    assert verdicts(result(), new) == {}


def test_only_tasks_with_a_slower_kernel_are_to_be_measured_again() -> None:
    new = slowed(slowed(result(), 1.3, named("vectors")), 0.5, named("vectors", "gelu"))
    assert compare.suspects(result(), new) == [("softmax", "forward", "cpu")]


def test_rows_of_one_result_only_are_counted_and_named() -> None:
    old, new = result(), result()
    del old["cases"][0]["rows"][3]
    new["cases"][1]["rows"] = [
        each for each in new["cases"][1]["rows"] if not kernels({}, each) or each["threads"] > 1
    ]
    slower, text = shown(compare.differences(old, new))
    assert not slower
    assert f"1 rows were measured only now: {VECTORS}\n" in text
    assert "2 rows were measured only before: softmax forward lecture naive, " in text


def test_other_sizes_are_another_row() -> None:
    old, new = result(), slowed(result(), 1.3, named("vectors"))
    old["cases"][0]["sizes"] = {"N": 9}
    assert VECTORS not in verdicts(old, new)
    assert VECTORS in {each.name for each in compare.differences(old, new) if each.old is None}


def test_what_is_slower_is_shown_before_what_is_faster() -> None:
    new = slowed(result(), 0.5, named("naive"))
    slower, text = shown(compare.differences(result(), slowed(new, 1.3, named("vectors"))))
    assert slower
    assert text.index(VECTORS) < text.index("softmax forward cpu naive")
    assert "1.30 (1.28–1.32)" in text
    assert "1 of 24 rows are slower than before, 1 faster" in text


def test_what_is_only_faster_is_no_alarm() -> None:
    assert not shown(compare.differences(result(), slowed(result(), 0.5, named("naive"))))[0]


def test_no_row_in_common_is_no_alarm() -> None:
    slower, text = shown(compare.differences(result(), {"cases": []}))
    assert not slower
    assert "24 rows were measured only before: " in text


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.json"
    path.write_text(json.dumps(result()))
    return path


def test_a_result_of_this_machine_is_loaded(old: Path) -> None:
    assert compare.load(old) == result()


def broken(**changes: Any) -> str:
    return json.dumps({**result(), **changes})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{", "old.json is not JSON"),
        ("[]", "old.json is no result of python -m benchmarks kernels"),
        (broken(benchmark="train"), "old.json is no result of python -m"),
        (broken(cases=[]), "old.json is no result of python -m"),
        (broken(cases=[{"operation": "softmax"}]), "old.json is no result of python -m"),
        (broken(machine={}), "old.json is no result of python -m"),
        (
            broken(machine={"cpu": "Z80", "vector_bits": 8}),
            "old.json was measured on another machine (Z80, 8-bit vectors) than this (",
        ),
        (
            broken(machine={"cpu": processor_name(), "vector_bits": 8}),
            "8-bit vectors) than this (",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(old: Path, text: str, line: str) -> None:
    old.write_text(text)
    with pytest.raises(ValueError, match=f"^.*{re.escape(line)}.*$"):
        compare.load(old)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.json cannot be read: No such file or directory$"):
        compare.load(tmp_path / "none.json")


def leaves(monkeypatch: pytest.MonkeyPatch, old: Path, new: dict[str, Any] | None) -> Any:
    """Return the exit code of a run with the result `new`; None if nothing may be measured."""

    def run(*_: Any) -> dict[str, Any]:
        assert new is not None
        return new

    monkeypatch.setattr(benchmark, "run", run)
    with pytest.raises(SystemExit) as left:
        command.main(["kernels", "--compare", str(old)])
    return left.value.code


def test_a_result_that_cannot_be_compared_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leaves(monkeypatch, tmp_path / "none.json", None) == 2
    assert "none.json cannot be read" in capsys.readouterr().err


def test_a_result_of_other_operations_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "run", None)
    with pytest.raises(SystemExit) as left:
        command.main(["kernels", "adamw", "--compare", str(old)])
    assert left.value.code == 2
    assert "old.json has none of the requested operations" in capsys.readouterr().err


def test_what_is_not_slower_leaves_with_0(monkeypatch: pytest.MonkeyPatch, old: Path) -> None:
    assert leaves(monkeypatch, old, result()) == 0


def test_a_slower_kernel_leaves_with_1(
    monkeypatch: pytest.MonkeyPatch, old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leaves(monkeypatch, old, slowed(result(), 1.3, named("vectors"))) == 1
    assert "1 of 24 rows are slower than before" in capsys.readouterr().out


def test_a_run_that_was_stopped_leaves_with_the_code_of_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, old: Path
) -> None:
    new = {**slowed(result(), 1.3, named("vectors")), "complete": False}
    assert leaves(monkeypatch, old, new) == 130
