"""Tables on the terminal."""

import io
from typing import Any

import pytest
from rich.console import Console

from benchmarks.harness import report
from benchmarks.harness.statistics import Interval

RATIO = Interval(4.196, 2.8, 123.4, 0.97)


def row(**more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"rung": "vectors", "by": "ours", "threads": 1, "reference": False}
    return found | {"able": True, "wrong": None} | more


def measured(**more: Any) -> dict[str, Any]:
    what = {"seconds": Interval(0.00125, 0.001, 0.002, 0.97), "range": (0.001, 0.003)}
    what |= {"fraction": Interval(0.574, 0.5, 0.6, 0.97), "bound": "memory"}
    return row(
        **what, gain=RATIO, verdict="faster", compile_seconds=0.5, first_seconds=0.25, **more
    )


def shown(*rows: dict[str, Any], width: int = 120, **more: Any) -> str:
    record: dict[str, Any] = {"operation": "softmax", "direction": "forward", "shape": "cpu"}
    record |= {"sizes": {"N": 768, "V": 64}, "flops": 15_425_000, "bytes": 7_097_500, "rounds": 6}
    limits = [
        {"name": "peak", "threads": 1, "rate": 166e9},
        {"name": "triad", "threads": 1, "rate": 94e9},
    ]
    control = {"rung": "vectors", "threads": 1, "ratio": Interval(1.0, 0.97, 1.02, 0.96)}
    record |= {"cache": {"1": "L2"}, "limits": limits, "controls": [control]}
    console = Console(width=width, record=True, file=io.StringIO(), highlight=False)
    report.show(record | {"rows": list(rows)} | more, console)
    return console.export_text()


def line(text: str, name: str) -> str:
    return next(each for each in text.splitlines() if each.strip().startswith(name))


def test_the_title_says_what_it_costs_and_a_row_what_was_measured() -> None:
    assert "softmax forward, cpu: N 768, V 64; 15.4 MFLOP, 7.1 MB; 6 rounds" in shown(measured())
    cells = line(shown(measured()), "vectors").split()
    assert cells == [
        "vectors", "0.50", "250", "1.25", "4.20", "(2.80–123)", "▲", "12.34", "5.68", "57%", "mem",
    ]  # fmt: skip


def test_a_model_has_tokens_per_second_its_range_memory_and_warm_up() -> None:
    step = measured(memory=7_000_000, warm_up_seconds=5.0)
    text = shown(step, width=160, name="cpu", tokens=768, limits=[], controls=[])
    assert "cpu: N 768" in text
    assert "1 – 3" in text
    cells = line(text, "vectors").split()
    assert "614,400" in cells
    assert cells[-2:] == ["7", "5.0"]
    assert "▲" not in text  # Without a control there is no verdict.


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
    [
        ({"wrong": "probs[0, 0] is 0, expected 1"}, "WRONG"),
        ({"able": False}, "too slow"),
        ({"able": False, "offered": False}, "not offered"),
        ({}, "no turn"),
    ],
)
def test_a_rung_that_was_not_timed_says_why(more: dict[str, Any], said: str) -> None:
    assert said in line(shown(row(**more)), "vectors")
    if "wrong" in more:
        assert f"vectors is WRONG: {more['wrong']}" in shown(row(**more))


def test_of_a_rung_its_threads_vectors_and_cached_compilation_are_shown() -> None:
    more = {"rung": "[red]", "threads": 2, "packed": 0.914} | {"fraction": Interval(4e-4, 0, 1, 1)}
    cells = line(shown(measured() | more | {"compile_seconds": 0.0}), "[red]").split()
    assert (cells[1], cells[2], cells[-1]) == ("×2", "cached", "91%")
    assert "0.04%" in cells  # Not rounded to zero.
    assert report.interval(Interval(1.5, 1.5, 1.5, 0.0)) == "1.50"  # A single round has none.


def test_references_are_shown_below_the_ladder() -> None:
    reference = measured(rung="BLAS") | {"reference": True, "by_ours": RATIO}
    text = shown(reference, measured(rung="tile"))
    assert text.index("tile") < text.index("BLAS")


def test_the_limits_and_the_control_are_shown_below() -> None:
    text = " ".join(shown(measured()).split())
    assert "1 thread: 166 GFLOP/s, 94 GB/s (L2); A/A: vectors against itself 1.00" in text


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
