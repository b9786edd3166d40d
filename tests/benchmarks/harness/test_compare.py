"""Two results: what is slower, what is shown, what is refused, and the exit code."""

import copy
import io
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from helpers import noisy_runs
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks import kernels as benchmark
from benchmarks import machine
from benchmarks.campaign import differences
from benchmarks.harness import compare
from benchmarks.harness.analysis import FASTER, SAME, SLOWER
from benchmarks.harness.figures import FORMAT, figures
from benchmarks.render.cells import label
from tinygpt_np.machine import processor_name

PLACE = "softmax forward shape0 "
TILE, WIDE, NUMPY, PARALLEL = (PLACE + row for row in ("tile", "wide", "NumPy", "parallel ×2"))
HERE = {"cpu": processor_name(), "vector_bits": machine.vector_bits()}
OLD: dict[str, Any] = {
    "benchmark": "kernels", "format": FORMAT, "complete": True, "machine": HERE,
    "options": {"cache": "hot"},
    **figures(noisy_runs.run(np.random.default_rng(0), noisy_runs.idle)),
}  # fmt: skip


def result(factor: float = 1.0, slow: str = "no row") -> dict[str, Any]:
    """Return a result of this machine; rows that match `slow` take `factor` times as long."""
    found, rng = copy.deepcopy(OLD), np.random.default_rng(0)
    for case in found["cases"]:
        place = " ".join(case[part] for part in compare.CASE)
        for row in case["rows"] + case["limits"]:
            name = f"{place} {label({'rung': row.get('name'), 'threads': 1} | row)}"
            times = factor if re.search(slow, name) else 1.0
            if slow == "random":
                times = float(np.exp(rng.uniform(-0.5, 0.5)))
            if "rate" in row:
                row["rate"] /= times
            for part in {"seconds", "steady"} & {*row}:
                row[part][:3] = [times * value for value in row[part][:3]]
    return found


SLOWED = result(1.3, TILE)


def verdicts(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    found = compare.differences(old, new)
    return {each.row.name: each.verdict for each in found if each.verdict != SAME}


def shown(old: dict[str, Any], new: dict[str, Any]) -> tuple[bool, str]:
    console = Console(file=io.StringIO(), width=200, record=True)
    return compare.show(compare.differences(old, new), console), console.export_text()


@pytest.mark.parametrize(
    ("factor", "slow", "expected"),
    [
        (1.3, TILE, {TILE: SLOWER}),
        (0.7, TILE, {TILE: FASTER}),
        # Less than the margin, another pace of the whole machine, and noise in all rows.
        (1.17, TILE, {}),
        (0.5, "", {}),
        (2.0, "", {}),
        (1.0, "random", {}),
        # Another pace of the limits alone.
        (1.6, "peak|triad|update", {}),
        # On several threads; one that is not compiled; and a peer, which is not judged.
        (1.4, PARALLEL, {PARALLEL: SLOWER}),
        (1.3, f"{NUMPY}$", {NUMPY: SLOWER}),
        (1.3, f"{PLACE}PyTorch", {}),
    ],
)
def test_a_kernel_with_another_time_is_found_and_nothing_else(
    factor: float, slow: str, expected: dict[str, str]
) -> None:
    assert verdicts(result(), result(factor, slow)) == expected


@pytest.mark.parametrize("place", ["", PLACE])
def test_a_change_of_all_kernels_of_the_run_or_of_a_case_is_seen(place: str) -> None:
    found = verdicts(result(), result(3.0, f"{place}.*(blocked|packed|tile|wide|trained|parallel)"))
    assert len(found) == (6 if place else 24)
    assert {*found.values()} == {SLOWER}


def test_kernels_of_the_user_do_not_tell_the_pace_of_the_machine() -> None:
    case = copy.deepcopy(OLD["cases"][0])
    (row,) = (row for row in case["rows"] if row["rung"] == "NumPy" and "threads" not in row)
    for by, fixed in (("ours", True), ("numpy", True), ("mine", False)):
        row["by"] = by
        rows = compare.figures_of([case]).rows
        assert [times.fixed for key, times in rows.items() if key.label == "NumPy"] == [fixed]


def test_wide_intervals_few_rounds_and_rows_that_are_unresolved_say_nothing() -> None:
    cpus = "2 threads had 1.1 CPUs"
    for number, change, reason in (
        (0, {"steady": [7.7e-3, 7e-3, 10e-3, 0.95]}, None),
        (1, {"steady": [10e-3, 7.7e-3, 11e-3, 0.95]}, None),
        (0, {"seconds": [7.7e-3, 7.7e-3, 7.7e-3, 0.875]}, "too few rounds"),
        (1, {"unresolved": cpus}, cpus),
    ):
        both = result(), result(1.3, TILE)
        both[number]["cases"][0]["rows"][3] |= change
        assert verdicts(*both) == {}
        assert (f"1 prove nothing: {reason}" in shown(*both)[1]) == (reason is not None)


def test_what_was_measured_again_differs_only_if_it_did_so_both_times() -> None:
    assert compare.suspects(result(), SLOWED) == [("softmax", "forward", "shape0")]
    faster = result(0.5, TILE)
    assert compare.suspects(result(), faster) == compare.suspects(result(), SLOWED)
    assert compare.suspects(result(), result()) == []
    for new, word in ((SLOWED, SLOWER), (faster, FASTER)):
        for again, expected in ((new, {TILE: word}), (result(), {})):
            assert verdicts(result(), {**new, "again": again["cases"][:1]}) == expected
    assert verdicts(result(), {**SLOWED, "again": faster["cases"][:1]}) == {}


def test_what_was_measured_again_and_is_unresolved_is_not_slower() -> None:
    again = copy.deepcopy(SLOWED["cases"][:1])
    again[0]["rows"][3]["unresolved"] = "waited for a CPU in 4 of 9 turns"
    assert verdicts(result(), {**SLOWED, "again": again}) == {}


def test_rows_that_were_wrong_or_failed_are_not_compared() -> None:
    for fault in ({"wrong": "y[0] is 1"}, {"failed": "killed by signal 9"}):
        new = result(1.3, TILE)
        new["cases"][0]["rows"][3] |= fault
        assert verdicts(result(), new) == {}


def test_rows_of_one_result_only_are_counted_and_named_also_for_other_sizes() -> None:
    old, new = result(), result(1.3, TILE)
    old["cases"][0]["sizes"] = {"N": 7}
    del new["cases"][1]["rows"][2]
    slower, text = shown(old, new)
    assert not slower
    first = f"{PLACE}loops, {PLACE}blocked, {PLACE}packed, …\n"
    assert f"9 rows were measured only now: {first}" in text
    assert f"10 rows were measured only before: {first}" in text


def test_cases_of_the_same_sizes_are_compared_whatever_their_shape_is_called() -> None:
    old = result()
    for number, case in enumerate(old["cases"]):
        case["shape"] = f"N={number}"
    assert verdicts(old, SLOWED) == {TILE: SLOWER}
    assert compare.suspects(old, SLOWED) == [("softmax", "forward", "shape0")]


def test_what_is_slower_is_shown_before_what_is_faster() -> None:
    slower, text = shown(result(3.0, WIDE), SLOWED)
    assert slower
    assert text.index(TILE) < text.index(WIDE)
    assert "1.30 (" in text
    assert re.search(r"1 of 36 rows are slower than before, 1 faster", text)


@pytest.mark.parametrize(
    # The number of 50 slowdowns by 1.3 that must be found.
    ("noise", "least"),
    [
        (noisy_runs.idle, 48),
        (noisy_runs.heavy_tails, 44),
        (noisy_runs.ticks, 30),
        (noisy_runs.burst, 20),
        (noisy_runs.busy, 40),
    ],
)
def test_on_noisy_machines_there_is_no_false_alarm_and_a_slowdown_is_found(
    noise: Callable[..., Any], least: int
) -> None:
    rng, choice = np.random.default_rng(5), random.Random(5)
    same = [noisy_runs.run(rng, noise) for _ in range(15)]
    slowed = [noisy_runs.run(rng, noise, slowed={(0, "tile"): 1.3}) for _ in range(5)]
    for _ in range(100):
        old, new, again = choice.sample(same, 3)
        assert differences(old, new, again) == {}
    found = 0
    for _ in range(50):
        different = differences(choice.choice(same), *choice.sample(slowed, 2))
        found += different.pop(TILE, SAME) == SLOWER
        assert different == {}
    assert found >= least


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
        (("--compare", "OLD", "--cache", "cold"), "to compare with has hot caches, not cold ones"),
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
    for new, code in ((result(0.5, TILE), 0), (SLOWED, 1), (stopped, 130)):
        monkeypatch.setattr(benchmark, "run", Mock(return_value=new))
        with pytest.raises(SystemExit, match=f"^{code}$"):
            command.main(["kernels", "--compare", str(old)])
