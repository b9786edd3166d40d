"""Tables on the terminal."""

import io
from typing import Any

import pytest
from helpers.kernel_results import record
from rich.console import Console

from benchmarks.harness import report
from benchmarks.harness.statistics import Interval

RATIO = Interval(4.196, 2.8, 123.4, 0.97)


def row(**more: Any) -> dict[str, Any]:
    about = {"rung": "vectors", "by": "ours", "threads": 1, "reference": False, "able": True}
    return {**about, "wrong": None, **more}


def measured(**more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"seconds": Interval(0.00125, 0.001, 0.002, 0.97)}
    found |= {"range": (0.001, 0.003), "bound": "memory", "gain": RATIO, "verdict": "faster"}
    found |= {"fraction": Interval(0.574, 0.5, 0.6, 0.97)}
    return row(**{**found, "compile_seconds": 0.5, "first_seconds": 0.25, **more})


def shown(*rows: dict[str, Any], width: int = 120, **more: Any) -> str:
    case = record(limits=[], rounds=6) | {"sizes": {"N": 768, "V": 64}}
    case |= {"flops": 15_425_000, "bytes": 7_097_500, "rows": [*rows], "cache": {"1": "L2"}}
    case["limits"] = [{"name": "peak", "threads": 1, "rate": 166e9}]
    case["limits"].append({"name": "triad", "threads": 1, "rate": 94e9})
    console = Console(width=width, record=True, file=io.StringIO(), highlight=False)
    report.show({**case, **more}, console)
    return console.export_text()


def line(text: str, name: str) -> str:
    return next(each for each in text.splitlines() if each.strip().startswith(name))


def test_a_kernel_has_its_cost_what_was_measured_and_limits_and_controls_below() -> None:
    text = shown(measured())
    assert "matmul forward, cpu: N 768, V 64; 15.4 MFLOP, 7.1 MB; 6 rounds" in text
    assert line(text, "vectors").split() == [
        "vectors", "0.50", "250", "1.25", "4.20", "(2.80–123)", "▲", "12.34", "5.68", "57%", "mem",
    ]  # fmt: skip
    below = " ".join(text.split())
    assert "1 thread: 166 GFLOP/s, 94 GB/s (L2); A/A: tiles against itself 1.00" in below
    # Threads, vectors, cached compilation, and a fraction that is not rounded to zero.
    fraction = Interval(4e-4, 0, 1, 1)
    more = {"rung": "[red]", "threads": 2, "packed": 0.914, "compile_seconds": 0.0}
    cells = line(shown(measured(**more, fraction=fraction)), "[red]").split()
    assert (cells[1], cells[2], cells[-1]) == ("×2", "cached", "91%")
    assert "0.04%" in cells


def test_a_model_has_tokens_per_second_its_range_memory_and_warm_up() -> None:
    step = measured(memory=7_000_000, warm_up_seconds=5.0, gain=Interval(1.5, 1.5, 1.5, 0.0))
    text = shown(step, width=160, name="cpu", tokens=768, limits=[], controls=[])
    assert "cpu: N 768" in text
    cells = line(text, "vectors").split()
    assert cells[cells.index("1.25") :] == [
        "1.25", "1", "–", "3", "1.50", "614,400", "12.34", "5.68", "57%", "mem", "7", "5.0",
    ]  # fmt: skip


def test_in_a_narrow_window_columns_are_left_out_but_no_number_is_cut() -> None:
    for width in (60, 70, 80, 95):
        text = shown(measured(rung="three passes", threads=2, packed=0.5), width=width)
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
        assert "1.25" in text
        assert "4.20 (2.80–123)" in text
    assert "compile" not in shown(measured(), width=60)


@pytest.mark.parametrize(
    ("more", "said"),
    [({"wrong": "probs[0, 0] is 0, expected 1"}, "WRONG"), ({"able": False}, "too slow"),
     ({"able": False, "offered": False}, "not offered"), ({}, "no turn")],
)  # fmt: skip
def test_a_rung_that_was_not_timed_says_why(more: dict[str, Any], said: str) -> None:
    text = shown(row(**more))
    assert said in line(text, "vectors")
    assert "wrong" not in more or f"vectors is WRONG: {more['wrong']}" in text


def test_references_are_shown_below_the_ladder() -> None:
    reference = measured(rung="BLAS", reference=True, by_ours=Interval(7.0, 7.0, 7.0, 0.97))
    text = shown(reference, measured(rung="tile"))
    assert text.index("tile") < text.index("BLAS") < text.index("7.00 (7.00–7.00)")


def test_the_limits_of_the_machine_have_a_column_for_each_number_of_threads() -> None:
    limits = [
        {"name": name, "where": where, "threads": threads, "rate": (94.4e9, 90e9, 97e9, 0.9)}
        for threads in (1, 2)
        for name, where in (("peak", None), ("triad", "L2"))
    ]
    console = Console(width=80, record=True, file=io.StringIO())
    report.show_limits({"limits": limits, "options": {"threads": [1, 2], "asm": True}}, console)
    text = console.export_text()
    assert line(text, "triad, L2, GB/s").count("94 (90 – 97)") == 2
    assert "2 threads" in text
    assert "packed: fraction" in text
