"""The tables of the kernel benchmark."""

import io
from typing import Any

import pytest
from rich.console import Console

from benchmarks import kernels_table

RATIO = {"median": 4.196, "low": 2.8, "high": 123.4, "coverage": 0.97}


def row(**more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"rung": "vectors", "by": "ours", "threads": 1, "reference": False}
    return found | {"able": True, "wrong": None} | more


def measured(**more: Any) -> dict[str, Any]:
    summary = {"median": 0.00125, "flops_per_second": 12.34e9, "bytes_per_second": 5.678e9}
    summary |= {"share": {"median": 0.574}, "limit": "memory", "gain": RATIO, "verdict": "faster"}
    return row(summary=summary, compile_seconds=0.5, first_seconds=0.25, **more)


def shown(*rows: dict[str, Any], width: int = 120, **more: Any) -> str:
    record: dict[str, Any] = {"operation": "softmax", "direction": "forward", "shape": "cpu"}
    record |= {"sizes": {"N": 768, "V": 64}, "flops": 244224, "bytes": 393216, "rounds": 6}
    limits = [
        {"name": "peak", "threads": 1, "rate": 166e9},
        {"name": "triad", "threads": 1, "rate": 94e9},
    ]
    record |= {"cache": {"1": "L2"}, "limits": limits, "controls": [], "rows": list(rows)} | more
    console = Console(width=width, record=True, file=io.StringIO(), highlight=False)
    kernels_table.show(record, console)
    return console.export_text()


def line(text: str, name: str) -> str:
    return next(each for each in text.splitlines() if name in each)


def test_the_title_says_what_was_done_and_what_it_costs() -> None:
    title = "softmax forward, cpu: N 768, V 64; 244 kFLOP, 393 kB; 6 rounds"
    assert title in shown(measured())


def test_a_row_shows_what_was_measured() -> None:
    cells = line(shown(measured()), "vectors").split()
    assert cells == [
        "vectors", "0.50", "250", "1.25", "4.20", "(2.80–123)", "▲", "12.34", "5.68", "57%", "mem",
    ]  # fmt: skip


def test_in_a_narrow_window_every_line_fits_and_what_was_paid_once_is_left_out() -> None:
    text = shown(measured(rung="three passes", threads=16, packed=0.5), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "compile" not in text
    assert "…" not in text


def test_the_narrower_the_window_the_fewer_the_columns_but_no_number_is_cut() -> None:
    for width in (60, 70, 80, 95):
        text = shown(measured(rung="three passes", threads=2, packed=0.5), width=width)
        assert "…" not in text
        assert "1.25" in text
        assert "4.20 (2.80–123)" in text


def test_one_round_has_no_interval() -> None:
    assert kernels_table.gain({"median": 1.5, "low": 1.5, "high": 1.5, "coverage": 0.0}) == "1.50"


def test_where_vectors_were_counted_their_share_has_a_column() -> None:
    assert "packed" not in shown(measured())
    assert line(shown(measured(packed=0.914)), "vectors").split()[-1] == "91%"


def test_a_kernel_that_was_kept_on_disk_says_so() -> None:
    kept = measured() | {"compile_seconds": 0.0}
    assert line(shown(kept), "vectors").split()[1] == "kept"


def test_threads_stand_beside_the_name() -> None:
    assert "vectors ×2" in shown(measured(threads=2))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"wrong": "probs[0, 0] is 0, should be 1"}, "WRONG"),
        ({"able": False}, "too slow"),
        ({"able": False, "offered": False}, "not offered"),
    ],
)
def test_a_rung_that_was_not_timed_says_why(more: dict[str, Any], said: str) -> None:
    assert said in line(shown(row(**more)), "vectors")


def test_what_is_wrong_is_told_below() -> None:
    text = shown(row(wrong="probs[0, 0] is 0, should be 1 ± 1e-07"))
    assert "vectors is WRONG: probs[0, 0] is 0, should be 1 ± 1e-07" in text


def test_references_stand_below_the_ladder() -> None:
    text = shown(measured(rung="BLAS", reference=True), measured(rung="tile"))
    assert text.index("tile") < text.index("BLAS")


def test_the_limits_and_the_control_stand_below() -> None:
    control = {
        "rung": "vectors",
        "threads": 1,
        "ratio": {"median": 1.0, "low": 0.97, "high": 1.02, "coverage": 0.96},
    }
    text = shown(measured(), controls=[control])
    assert "1 thread: 166 GFLOP/s, 94 GB/s (L2)" in text
    assert "A/A: vectors against itself 1.00 (0.97–1.02)" in text


def test_names_are_not_taken_for_markup() -> None:
    assert "[red]" in shown(measured(rung="[red]"))


def test_the_limits_of_the_machine_have_a_column_for_each_number_of_threads() -> None:
    rate = {"median": 94.4e9, "low": 90e9, "high": 97e9}
    limits = [
        {"name": name, "where": where, "threads": threads, "rate": rate}
        for threads in (1, 2)
        for name, where in (("peak", None), ("triad", "L2"))
    ]
    console = Console(width=80, record=True, file=io.StringIO())
    found = {
        "limits": limits,
        "options": {"threads": [1, 2], "asm": True},
        "left_out": {"llmc": "llmc is gone"},
    }
    kernels_table.show_limits(found, console)
    text = console.export_text()
    assert line(text, "triad, L2, GB/s").count("94 (90 – 97)") == 2
    assert "2 threads" in text
    assert "left out: llmc is gone" in text
