"""Two results: what is slower, what is shown, what is refused, and the exit code."""

import copy
import io
import json
import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from rich.console import Console

from benchmarks import ROOT, machine
from benchmarks import __main__ as command
from benchmarks import kernels as benchmark
from benchmarks.harness import compare
from benchmarks.harness.analysis import FASTER, SAME, SLOWER
from benchmarks.harness.figures import FORMAT
from tinygpt_np.machine import processor_name

VECTORS, ONLINE = "softmax forward cpu vectors", "softmax forward cpu online"
OLD = json.loads((ROOT / "benchmarks/results/ice-lake.json").read_text(encoding="utf-8"))
OLD["cases"] = [case for case in OLD["cases"] if case["operation"] in ("softmax", "gelu")]
OLD["format"] = FORMAT
OLD["machine"] = {"cpu": processor_name(), "vector_bits": machine.vector_bits()}


def result(factor: float = 1.0, slow: str = "no row") -> dict[str, Any]:
    """Return a result of this machine; rows that match `slow` take `factor` times as long."""
    found, rng = copy.deepcopy(OLD), np.random.default_rng(0)
    for case in found["cases"]:
        place = " ".join(case[part] for part in compare.CASE)
        for row in case["rows"] + case["limits"]:
            name = f"{place} {row.get('rung') or row['name']}"
            times = factor if re.search(slow, name) else 1.0
            if slow == "random":
                times = float(np.exp(rng.uniform(-0.5, 0.5)))
            if "pace" in row:
                row["pace"] *= times
            elif "seconds" in row:
                row["seconds"][:3] = [times * value for value in row["seconds"][:3]]
    return found


SLOWED = result(1.3, VECTORS)


def verdicts(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    found = compare.differences(old, new)
    return {each.row.name: each.verdict for each in found if each.verdict != SAME}


def shown(old: dict[str, Any], new: dict[str, Any]) -> tuple[bool, str]:
    console = Console(file=io.StringIO(), width=200, record=True)
    return compare.show(compare.differences(old, new), console), console.export_text()


@pytest.mark.parametrize(
    ("factor", "slow", "expected"),
    [
        (1.3, VECTORS, {VECTORS: SLOWER}),
        (0.7, VECTORS, {VECTORS: FASTER}),
        # Less than the margin, another pace of the whole machine, and noise in all rows.
        (1.09, VECTORS, {}),
        (0.5, "", {}),
        (2.0, "", {}),
        (1.0, "random", {}),
        # Not kernels of ours, or on several threads.
        (3.0, "softmax forward cpu Python", {}),
        (3.0, "softmax forward cpu parallel", {}),
    ],
)
def test_a_kernel_with_another_time_is_found_and_nothing_else(
    factor: float, slow: str, expected: dict[str, str]
) -> None:
    assert verdicts(result(), result(factor, slow)) == expected


def test_a_change_of_all_kernels_is_seen() -> None:
    found = verdicts(result(), result(3.0, "three passes|online|vectors|naive|tanh"))
    assert len(found) >= 24
    assert {*found.values()} == {SLOWER}


def test_intervals_that_overlap_and_few_rounds_say_nothing() -> None:
    for index, value in ((2, 7e-5), (3, 0.875)):
        old, new = result(), result(1.4, VECTORS)
        old["cases"][0]["rows"][4]["seconds"][index] = value
        assert verdicts(old, new) == {}
    assert "1 have too few rounds to tell" in shown(old, new)[1]


def test_what_was_measured_again_is_slower_only_if_it_was_slower_both_times() -> None:
    assert compare.suspects(result(), SLOWED) == [("softmax", "forward", "cpu")]
    assert compare.suspects(result(), result(0.5, VECTORS)) == []
    for again, expected in ((SLOWED, {VECTORS: SLOWER}), (result(), {})):
        assert verdicts(result(), {**SLOWED, "again": again["cases"][:1]}) == expected


def test_rows_of_one_result_only_are_counted_and_named_also_for_other_sizes() -> None:
    old, new = result(), result(1.3, VECTORS)
    old["cases"][0]["sizes"] = {"N": 9}
    del new["cases"][1]["rows"][2]
    slower, text = shown(old, new)
    assert not slower
    first = f"softmax forward cpu three passes, {ONLINE}, {VECTORS}, …\n"
    assert f"4 rows were measured only now: {first}" in text
    assert f"5 rows were measured only before: {first}" in text


def test_what_is_slower_is_shown_before_what_is_faster() -> None:
    slower, text = shown(result(3.0, ONLINE), SLOWED)
    assert slower
    assert text.index(VECTORS) < text.index(ONLINE)
    assert "1.30 (1.17–1.44)" in text
    assert re.search(r"1 of \d+ rows are slower than before, 1 faster", text)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.json"
    path.write_text(json.dumps(result()))
    return path


CPU = processor_name()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (None, "is no result of python -m benchmarks kernels"),
        ({"benchmark": "train"}, "is no result of python -m benchmarks kernels"),
        ({"cases": [{"operation": "softmax"}]}, "is no result of python -m benchmarks kernels"),
        (
            {"machine": {"cpu": CPU, "vector_bits": 8}},
            f"was measured on another machine ({CPU}, 8-bit vectors) than this",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(old: Path, changes: Any, line: str) -> None:
    assert compare.load(old) == result()
    old.write_text(json.dumps(changes and {**result(), **changes}))
    with pytest.raises(ValueError, match=re.escape(f"old.json {line}")):
        compare.load(old)
    old.write_text("{")
    with pytest.raises(ValueError, match=r"old\.json is not JSON"):
        compare.load(old)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--compare", "none.json"), "none.json cannot be read"),
        (("adamw", "--compare", "OLD"), "has none of the requested operations"),
        (("--compare", "OLD", "--rounds", "4"), "--compare needs at least --rounds 5, not 4"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused_before_anything_is_measured(
    arguments: tuple[str, ...], line: str, old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["kernels", *(str(old) if each == "OLD" else each for each in arguments)])
    assert line in capsys.readouterr().err


def test_the_exit_code_says_whether_anything_is_slower_or_the_run_was_stopped(
    monkeypatch: pytest.MonkeyPatch, old: Path
) -> None:
    stopped = {**SLOWED, "complete": False}
    for new, code in ((result(0.5, VECTORS), 0), (SLOWED, 1), (stopped, 130)):
        monkeypatch.setattr(benchmark, "run", Mock(return_value=new))
        with pytest.raises(SystemExit, match=f"^{code}$"):
            command.main(["kernels", "--compare", str(old)])
