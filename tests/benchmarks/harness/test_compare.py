"""Two results: what is slower, what is shown, what is refused, and the exit code."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.kernel_results import (
    VECTORS,
    Chosen,
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


@pytest.mark.parametrize(
    ("factor", "chosen", "expected"),
    [
        (1.3, named("vectors"), {VECTORS: SLOWER}),
        (0.7, named("vectors"), {VECTORS: FASTER}),
        # Less than the margin, or another pace of the whole machine.
        (1.09, named("vectors"), {}),
        (0.5, everything, {}),
        (2.0, everything, {}),
        # Not kernels of ours, or on several threads.
        *((3.0, named(name), {}) for name in ("Python", "PyTorch", "peak", "parallel")),
    ],
)
def test_a_kernel_with_another_time_is_found_and_nothing_else(
    factor: float, chosen: Chosen, expected: dict[str, str]
) -> None:
    assert verdicts(result(), slowed(result(), factor, chosen)) == expected


def test_a_change_of_all_kernels_is_seen() -> None:
    found = verdicts(result(), slowed(result(), 1.3, kernels))
    assert len(found) == 16
    assert set(found.values()) == {SLOWER}


def test_rows_that_differ_everywhere_hide_a_difference() -> None:
    new, rng = result(), np.random.default_rng(0)
    for case in new["cases"]:
        for row in (*case["limits"], *case["rows"]):
            factor = float(np.exp(rng.uniform(-0.25, 0.25)))
            slow(row, factor)
    assert verdicts(result(), new) == {}


def test_intervals_that_overlap_and_few_rounds_say_nothing() -> None:
    old, new = result(), slowed(result(), 1.4, named("vectors"))
    old["cases"][0]["rows"][3]["seconds"][2] = 3e-4
    assert verdicts(old, new) == {}
    old, new = result(), slowed(result(), 2.0, named("vectors"))
    for found in (old, new):
        found["cases"][0]["rows"][3]["seconds"][3] = 0.875
    assert verdicts(old, new) == {}


def test_what_was_measured_again_is_slower_only_if_it_was_slower_both_times() -> None:
    new = slowed(again(result()), 1.3, named("vectors"))
    assert verdicts(result(), new) == {VECTORS: SLOWER}
    new["again"] = again(result())["again"]
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


def leaves(monkeypatch: pytest.MonkeyPatch, run: Any, *arguments: str | Path) -> Any:
    monkeypatch.setattr(benchmark, "run", run)
    with pytest.raises(SystemExit) as left:
        command.main(["kernels", *map(str, arguments)])
    return left.value.code


def test_what_cannot_be_compared_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leaves(monkeypatch, None, "--compare", "none.json") == 2
    assert "none.json cannot be read" in capsys.readouterr().err
    assert leaves(monkeypatch, None, "adamw", "--compare", old) == 2
    assert "old.json has none of the requested operations" in capsys.readouterr().err


SLOWED = slowed(result(), 1.3, named("vectors"))


@pytest.mark.parametrize(
    ("new", "code"),
    [
        (result(), 0),
        (slowed(result(), 0.5, named("naive")), 0),
        (SLOWED, 1),
        ({**SLOWED, "complete": False}, 130),
    ],
)
def test_the_exit_code_says_whether_anything_is_slower_or_the_run_was_stopped(
    new: dict[str, Any], code: int, monkeypatch: pytest.MonkeyPatch, old: Path
) -> None:
    assert leaves(monkeypatch, lambda *_: new, "--compare", old) == code  # pyright: ignore
