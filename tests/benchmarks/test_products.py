"""The matmuls of the training steps against NumPy's."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.gate import SIZES, pass_gate, problems, tiny_case
from rich.console import Console

from benchmarks import kernels, products
from benchmarks.cases import products as cases
from benchmarks.cases.shapes import MICRO_BATCHES
from benchmarks.harness.analysis import Interval
from benchmarks.ladders import products as ladder
from benchmarks.worker.problem import WrongResult, compare

OURS, NUMPY = ladder.RUNGS


@pytest.mark.parametrize("direction", cases.DIRECTIONS)
def test_ours_and_numpy_pass_the_gate_and_an_element_that_is_wrong_does_not(
    direction: str,
) -> None:
    for rung in (OURS, NUMPY):
        pass_gate(rung, "products", direction)
    problem = problems("products", direction)[0]
    (name, truth), *_ = problem.case.truth(problem.inputs).items()
    wrong = truth.values.copy()
    compare(name, wrong, truth)
    wrong[-1, -1] += 1e-2
    with pytest.raises(WrongResult):
        compare(name, wrong, truth)


def test_rows_are_those_of_a_micro_batch() -> None:
    found = {name: cases.sizes(part) for name, part in MICRO_BATCHES.items()}
    rows = {name: (sizes["N"], sizes["uses"]) for name, sizes in found.items()}
    assert {"cpu": (192, 4), "lecture": (512, 32), "gpt2": (128, 2)}.items() <= rows.items()


def test_flops_and_bytes_are_those_of_all_products_of_a_step() -> None:
    N, C, F, uses = (SIZES[letter] for letter in ("N", "C", "F", "uses"))
    for direction, times, arrays in [
        ("c_fc y", uses, N * C + C * F + N * F),
        ("c_fc dW", 1, N * C + N * F + 2 * C * F),  # dW is read and written.
    ]:
        case = tiny_case("products", direction)
        assert (case.flops, case.bytes) == (times * 2 * N * C * F, times * 4 * arrays)


def test_where_rows_are_sampled_both_ends_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "CHECKED", 5)
    truth = cases.checked_truth("y", np.ones((1000, 2)), np.ones((2, 3)))["y"]
    assert truth.rows is not None
    assert (len(truth.rows), truth.rows[0], truth.rows[-1]) == (5, 0, 999)


def shown(*ratios: float | None) -> str:
    """Return what is shown of some ratios; None for a case in which ours was wrong."""
    seconds = {"seconds": Interval(1e-3, 1e-3, 1e-3, 0.97)}
    found: list[dict[str, Any]] = []
    for number, each in enumerate(ratios):
        rows: list[dict[str, Interval]] = [{}, seconds]
        if each is not None:
            rows = [seconds, seconds | {"by_ours": Interval(each, each, each, 1)}]
        case = {"shape": "gpt2", "direction": f"toy {number}", "sizes": {"uses": 2}, "flops": 1e9}
        found.append({**case, "rows": rows})
    console = Console(width=80, highlight=False)
    with console.capture() as capture:
        products.show({"cases": found}, console)
    return capture.get()


def test_the_end_tells_the_mean_the_smallest_and_what_is_slow() -> None:
    assert shown(2.0, 0.5, 0.89, 0.9).splitlines()[-5:] == [
        "geometric mean of NumPy / ours: 0.95",
        "smallest: 0.50, gpt2 toy 1",
        "below 0.9:",
        "  0.50 gpt2 toy 1",
        "  0.89 gpt2 toy 2",
    ]
    assert shown(2.0).endswith("below 0.9: none\n")
    assert "WRONG" in shown(None)


def test_a_run_writes_all_of_it(
    tmp_path: Path, toys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "LIMIT_ROUNDS", 1)
    monkeypatch.setattr("benchmarks.machine.caches", lambda: {"L1": 1 << 14, "L2": 1 << 16})
    monkeypatch.setattr("benchmarks.cases.directions", lambda _: ("c_fc y", "attn c_proj dW"))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    path = tmp_path / "all.json"
    assert products.run(1, 1, path, ("cpu",))
    written = json.loads(path.read_text())
    assert (written["benchmark"], written["complete"], len(written["cases"])) == ("matmul", True, 2)
    assert not path.with_suffix(".html").exists()
