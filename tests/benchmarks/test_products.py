"""The matmuls of the training steps against NumPy's."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.gate import SIZES, pass_gate
from rich.console import Console

from benchmarks import kernels, products
from benchmarks.cases import KernelCase
from benchmarks.cases import products as cases
from benchmarks.harness.gate import Problem, WrongResult
from benchmarks.harness.statistics import Interval
from benchmarks.ladders import products as ladder

OURS, NUMPY = ladder.RUNGS
LETTERS = ("N", "C", "Q", "F", "V", "uses")


@pytest.mark.parametrize("direction", cases.DIRECTIONS)
def test_ours_and_numpy_pass_the_gate(direction: str) -> None:
    for rung in (OURS, NUMPY):
        pass_gate(rung, "products", direction)


@pytest.mark.parametrize(("name", "rows"), [("cpu", 192), ("lecture", 512), ("gpt2", 128)])
def test_rows_are_those_of_a_micro_batch(name: str, rows: int) -> None:
    sizes = cases.SIZES[name]
    assert sizes["N"] == rows
    assert sizes["uses"] * rows == {"cpu": 12 * 64, "lecture": 64 * 256, "gpt2": 4 * 64}[name]


def problem(direction: str) -> tuple[Problem, Any]:
    sizes = {letter: SIZES[letter] for letter in LETTERS}
    found = Problem(
        KernelCase("products", direction, "tiny", sizes, cases.DIRECTIONS[direction]), 0, 0
    )
    return found, found.call(1, ThreadPoolExecutor(1))


@pytest.mark.parametrize("direction", ["c_fc y", "c_fc dx", "c_fc dW", "head dW"])
def test_an_element_that_is_wrong_is_found(direction: str) -> None:
    found, call = problem(direction)
    OURS.runners[direction].prepare(call)()
    found.check(call)
    call.arrays[next(iter(found.truth))][-1, -1] += 1e-2
    with pytest.raises(WrongResult):
        found.check(call)


def test_a_gradient_is_added_to_what_is_there() -> None:
    found, call = problem("c_fc dW")
    before = call.inputs["dweight"].copy()
    call.inputs["dweight"].fill(0)
    OURS.runners["c_fc dW"].prepare(call)()
    with pytest.raises(WrongResult):
        found.check(call)
    call.inputs["dweight"][...] += before
    found.check(call)


def test_weights_are_packed_within_the_step_where_training_packs_them() -> None:
    _, call = problem("c_fc y")
    step = OURS.runners["c_fc y"].prepare(call)
    step()
    call.inputs["weight"] *= 2
    y = call.outputs["y"].copy()
    step()
    np.testing.assert_allclose(call.outputs["y"], 2 * y, rtol=1e-4, atol=1e-4)


def test_flops_count_all_products_of_a_step() -> None:
    found, _ = problem("c_fc y")
    assert found.case.flops == 5 * 2 * 23 * 37 * 148
    assert problem("c_fc dW")[0].case.flops == 2 * 23 * 37 * 148


def test_where_rows_are_sampled_both_ends_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "CHECKED", 5)
    truth = cases.checked_truth("y", np.ones((1000, 2)), np.ones((2, 3)))["y"]
    assert truth.rows is not None
    assert (len(truth.rows), truth.rows[0], truth.rows[-1]) == (5, 0, 999)


def result(*ratios: float) -> dict[str, Any]:
    one = Interval(1e-3, 1e-3, 1e-3, 0.97)
    return {
        "cases": [
            {"shape": "gpt2", "direction": f"toy {number}", "sizes": {"uses": 2}, "flops": 1e9,
             "rows": [{"seconds": one}, {"seconds": one, "by_ours": Interval(each, each, each, 1)}]}
            for number, each in enumerate(ratios)
        ]
    }  # fmt: skip


def shown(found: dict[str, Any]) -> str:
    console = Console(width=80, highlight=False)
    with console.capture() as capture:
        products.show(found, console)
    return capture.get()


def test_the_end_tells_the_mean_the_smallest_and_what_is_slow() -> None:
    assert shown(result(2.0, 0.5, 0.89, 0.9)).splitlines()[-5:] == [
        "geometric mean of NumPy / ours: 0.95",
        "smallest: 0.50, gpt2 toy 1",
        "below 0.9:",
        "  0.50 gpt2 toy 1",
        "  0.89 gpt2 toy 2",
    ]
    assert shown(result(2.0)).endswith("below 0.9: none\n")


def test_what_is_wrong_is_shown_and_has_no_speed() -> None:
    found = result(2.0)
    del found["cases"][0]["rows"][0]["seconds"], found["cases"][0]["rows"][1]["by_ours"]
    assert "WRONG" in shown(found)


def test_a_run_writes_all_of_it(
    tmp_path: Path, toys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "LIMIT_ROUNDS", 1)
    monkeypatch.setattr("benchmarks.machine.caches", lambda: {"L1": 1 << 14, "L2": 1 << 16})
    monkeypatch.setattr("benchmarks.cases.directions", lambda _: ("c_fc y", "attn c_proj dW"))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    path = tmp_path / "all.json"
    assert products.run(("cpu",), 1, path)
    written = json.loads(path.read_text())
    assert (written["benchmark"], written["complete"], len(written["cases"])) == ("matmul", True, 2)
    assert not path.with_suffix(".html").exists()
