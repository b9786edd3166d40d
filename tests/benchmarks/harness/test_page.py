"""The page of the kernel benchmark."""

import functools
from pathlib import Path
from typing import Any

import pytest
from helpers.html_pages import Page
from helpers.kernel_results import candidate, found, limit, record

from benchmarks.harness import page
from benchmarks.harness.page import Scale
from benchmarks.harness.roofline import Roofs


@functools.cache
def usual() -> str:
    """Return the page of a complete run."""
    return page.render(found())


def shown(*records: dict[str, Any], **changes: Any) -> str:
    changed = records or changes
    return Page(page.render(found(*records, **changes)) if changed else usual()).text


def test_the_page_is_well_formed_loads_nothing_and_is_written_to_a_new_file(tmp_path: Path) -> None:
    parsed = Page(usual())
    assert (parsed.open, parsed.loaded) == ([], [])
    page.write(found(), tmp_path / "new.html")
    assert (tmp_path / "new.html").read_text(encoding="utf-8") == usual()
    with pytest.raises(FileExistsError):
        page.write(found(), tmp_path / "new.html")


def test_limits_of_a_case_and_packed_are_shown_where_they_were_measured() -> None:
    assert "of limit compile s first ms packed" not in shown()
    case = record(rows=[candidate("shared", 2, packed=0.5)])
    assert rows_of(case)["shared ×2"]["figures"]["packed"] == ("50%", "")
    for each in case["limits"]:
        each["rate"] *= 1e9
    text = shown(case)
    assert "of limit compile s first ms packed" in text
    assert "1 thread: 10 GFLOP/s, 10 GB/s (L1); 2 threads: 10 GFLOP/s, 10 GB/s (L1)" in text


@pytest.mark.parametrize(
    "fact",
    ["CPU Some CPU", "256 bits", "1 and 2 of 2 CPUs (0, 1)", "L1 48 KiB, L2 1.25 MiB", "abc+",
     "0.25 before, 1.75 after", "numpy 2.4.0", "BLAS Some BLAS", "2026-01-02",
     "triad, L1, GB/s 10.0 9.00–11.0", "theirs torch The idea of theirs.",
     "Roofline of matmul forward, cpu", "references; gain:",
     "Notes from benchmarks/ladders/matmul.py. Their gains were measured on",
     "A/A: tiles against itself 1.00 (1.00–1.00); shared ×2 against itself 1.00 (1.00–1.00)."],
)  # fmt: skip
def test_the_page_says(fact: str) -> None:
    assert fact in shown().replace("; A/A: shared", "; shared")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peers": {"llmc ×1": {"compiler": "gcc 12"}}}, "peer llmc ×1 compiler gcc 12"),
        ({"left_out": {"llmc": "no <cc>"}}, "llmc was left out: no <cc>"),
        ({"complete": False}, "The run was stopped"),
        ({"options": {"threads": [1], "rounds": 9}}, "stopped after 6 of 9 rounds"),
    ],
)
def test_the_page_says_what_was_missing(changes: dict[str, Any], said: str) -> None:
    assert said in shown(**changes)
    assert said not in shown()


@pytest.mark.parametrize(
    ("notes", "kind", "content"),
    [
        ("One\nparagraph: this.", "paragraph", "One paragraph: this."),
        ("- one\n  thing\n- two", "list", ["one thing", "two"]),
        ("a b: one\n  thing\nc: two", "terms", [("a b", "one thing"), ("c", "two")]),
        ("What follows: this\nis words. And here: too.", "paragraph",
         "What follows: this is words. And here: too."),
        ("    for a in b:\n        c", "lines", "    for a in b:\n        c"),
    ],
)  # fmt: skip
def test_the_blocks_of_notes(notes: str, kind: str, content: Any) -> None:
    assert list(page.blocks(f"First.\n\n{notes}\n"))[1:] == [(kind, content)]


def test_without_a_control_nothing_is_resolved() -> None:
    case = record(controls=[])
    assert "No control, so no verdicts." in shown(case)
    assert rows_of(case)["tiles"]["words"] == "not resolved"


def test_the_page_says_why_there_is_no_time() -> None:
    row = candidate("a <b>", wrong="y[0] is <nan>", turns=[None, None, None])
    text = shown(record(rows=[row, candidate("shared", 2)]))
    assert "a <b> The idea of a <b>. WRONG: y[0] is <nan> shared" in text


def test_a_bar_tells_the_numbers_when_hovered() -> None:
    (label,) = (bar for bar in Page(usual()).labels if bar.startswith("tiles"))
    assert label.splitlines() == [
        "tiles: 1.025e+04 ms (min 1e+04, max 1.05e+04)",
        "turns in 6 of 6 rounds",
        "over the serial rung above: 4.00 (4.00–4.00) at 97%, ▲ faster",
        "7.8e-09 GFLOP/s, 3.9e-09 GB/s",
        "78% (76%–80%) of the limit, compute",
    ]


def test_without_a_round_there_is_a_table_and_no_roofline() -> None:
    rows = [candidate("loops", turns=[]), candidate("shared", 2, turns=[])]
    limits = [{**limit(name, 1), "turns": list[Any]()} for name in ("peak", "triad")]
    control = candidate("shared", 2, turns=[])
    text = shown(record(rows=rows, limits=limits, controls=[control], rounds=0))
    assert "stopped after 0 of 6 rounds" in text
    assert "The idea of loops. no turn" in text
    assert "Roofline" not in text


def test_rows_have_figures_verdicts_and_turns_and_references_are_a_group_of_their_own() -> None:
    groups = page.view(record(), Roofs({}, {}), 3)["groups"]
    names = [[row["name"] for row in group] for group in groups]
    assert names == [["loops", "tiles", "shared ×2"], ["theirs"]]
    _, tiles, shared, theirs = (row for group in groups for row in group)
    assert (tiles["figures"]["gain"], tiles["words"]) == (("4.00", "4.00–4.00"), "▲ faster")
    assert theirs["words"] == "▲ ours faster"
    assert tiles["figures"]["compile s"] == ("0.25", "")
    assert shared["figures"]["compile s"] == ("cached", "")
    slow = candidate("slow", turns=[[1.0], None, *[[1.0]] * 4])
    tip = rows_of(record(rows=[slow, candidate("shared", 2)]))["slow"]["tip"]
    assert "turns in 5 of 6 rounds" in tip


def rows_of(case: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the rows as the template shows them, by name."""
    view = page.view(case, Roofs({}, {}), 3)
    return {row["name"]: row for group in view["groups"] for row in group}


def test_a_roofline_has_the_limits_that_were_measured_with_the_case() -> None:
    above = page.own_roofs(record(), Roofs({1: 5.0}, {1: {"L1": 3.0, "L2": 2.0}}))
    assert above.peaks == {1: 10.0, 2: 10.0}
    assert above.bandwidths == {1: {"L1": 10.0, "L2": 2.0}, 2: {"L1": 10.0}}


def test_a_bar_starts_at_the_speed_of_the_rung_above() -> None:
    rows = rows_of(record())
    loops, tiles = rows["loops"]["bar"], rows["tiles"]["bar"]
    assert (loops.kind, loops.start) == ("first", loops.end)
    assert tiles.kind == "faster up"
    assert tiles.start == pytest.approx(loops.end)
    assert tiles.end > tiles.start


def test_a_bar_that_lost_starts_at_its_own_speed() -> None:
    case = record(rows=[candidate("tiles"), candidate("loops"), candidate("shared", 2)])
    above, bar = (rows_of(case)[name]["bar"] for name in ("tiles", "loops"))
    assert rows_of(case)["loops"]["words"] == "▼ slower"
    assert bar.kind == "slower down"
    assert bar.end == pytest.approx(above.end)
    assert bar.start < bar.end


def test_a_scale_is_logarithmic_shows_all_speeds_and_has_marks() -> None:
    scale = Scale(0, 3)
    assert scale.place(100) - scale.place(10) == pytest.approx(scale.place(10) - scale.place(1))
    scale = page.scale_of([0.01, 3.0, 900.0])
    assert 0 < scale.place(0.01) < scale.place(3.0) < scale.place(900.0) < 100
    assert Scale(8, 2.5).ticks == [(0, "0.1"), (40, "1"), (80, "10")]


def test_the_roof_is_what_bounds_the_case() -> None:
    assert page.bounds_of(record()) == {1: 10.0, 2: 10.0}
    assert page.bounds_of(record(bytes=160)) == {1: 5.0, 2: 5.0}
