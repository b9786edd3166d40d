"""The page of the kernel benchmark."""

import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from helpers.html_pages import Page
from helpers.kernel_results import candidate, found, limit, record

from benchmarks import ladders
from benchmarks.render import cells, page
from benchmarks.render.roofline import Axis

USUAL = Page(page.render(found()))


def shown(*records: dict[str, Any], **changes: Any) -> str:
    return Page(page.render(found(*records, **changes))).text


def test_a_kernel_of_the_user_is_compared_with_others_below_the_table() -> None:
    mine = candidate("k.py:f", by="mine", reference=True, turns=[[0.005]] * 6)
    text = shown(record(rows=[candidate("tiles"), mine]))
    assert "k.py:f, times as fast: 2.05 (2.00–2.10) ▲ as tiles." in text
    assert "2.05 2.00–2.10 ▲ faster" in text


def test_the_page_is_well_formed_loads_nothing_and_is_written_to_a_new_file(tmp_path: Path) -> None:
    assert (USUAL.open, USUAL.loaded) == ([], [])
    path = tmp_path / "new.html"
    page.write(found(), path)
    assert path.read_text(encoding="utf-8") == page.render(found())
    with pytest.raises(FileExistsError):
        page.write(found(), path)


def test_the_page_says_all_facts_of_a_run() -> None:
    for fact in (
        "CPU Some CPU", "256 bits", "1 and 2 of 2 CPUs", "L1 48 KiB, L2 1.25 MiB", "abc+",
        "load per CPU 0.12", "other processes 0.99 CPUs, steal 4%", "others in this run unknown",
        "numpy 2.4.0", "BLAS Some BLAS", "2026-01-02",
        "triad, L1, GB/s 10.0 9.00–11.0", "theirs torch The idea of theirs.",
        "Roofline of matmul forward, cpu", "references; gain:", "of limit compile s first ms loops",
        "Notes from benchmarks/ladders/matmul.py. The gains that they tell were measured on "
        f"{ladders.MEASURED_ON} ; below each are the gains of this run, on Some CPU.",
        "A/A: tiles 1.00 (1.00–1.00), shared ×2 1.00 (1.00–1.00).",
    ):  # fmt: skip
        assert fact in USUAL.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peers": {"llmc ×1": {"compiler": "gcc 12"}}}, "peer llmc ×1 compiler gcc 12"),
        ({"left_out": {"llmc": "no <cc>"}}, "llmc was left out: no <cc>"),
        ({"complete": False}, "The run was stopped"),
        ({"options": {"threads": [1], "rounds": 9}}, "stopped after 6 of 9 rounds"),
        (
            {"options": {"threads": [1], "rounds": 6, "cache": "cold"}},
            "caches before a step cold: before each step other memory",
        ),
    ],
)
def test_the_page_says_what_was_missing(changes: dict[str, Any], said: str) -> None:
    assert said in shown(**changes)
    assert said not in USUAL.text


def test_limits_and_packed_are_shown_where_they_were_measured_and_verdicts_need_a_control() -> None:
    case = record(rows=[candidate("a <b>", wrong="y[0] is <nan>", turns=[]),
                        candidate("shared", 2, packed=0.5)], controls=[])  # fmt: skip
    text = shown(case)
    assert "of limit compile s first ms packed" in text
    assert "1 thread: 10 GFLOP/s, 10 GB/s (L1); 2 threads: 10 GFLOP/s, 10 GB/s (L1)" in text
    assert "No control, so no verdicts." in text
    assert "a <b> The idea of a <b>. WRONG: y[0] is <nan> shared" in text


def test_gains_of_this_run_stand_below_those_that_the_notes_tell() -> None:
    rows = [candidate(name) for name in ("loops", "reordered", "tile")]
    rows[-1]["trained"] = True
    rows += [candidate("parallel", 2), candidate("theirs", by="torch", reference=True)]
    case = record(rows=rows)
    assert [*page.gains([case], "matmul")] == ["reordered", "tile", "parallel"]
    assert page.gains([case], "softmax") == {}
    text = shown(case, {**case, "direction": "backward"}, {**case, "shape": "gpt2"})
    (gain,) = {cells.interval(row["gain"]) for row in case["rows"] if row["rung"] == "reordered"}
    both = f"This run, cpu: forward {gain}, backward {gain} This run, gpt2: forward {gain}"
    assert re.search(rf"reordered 9 / 8 / 13\.[^:]*{re.escape(both)} blocked", text)
    assert "This run, cpu: forward ×2 1.00 (1.00–1.00)" in text


def test_what_is_to_be_known_of_a_row_stands_by_it() -> None:
    counts = {"instructions": 1.5e6, "cycles": 1e6, "misses": 20}
    case = record(
        rows=[
            candidate(
                "tiles",
                trained=True,
                counters=counts,
                loop=["f:", "jne <1>", "1 FMA ×4: 8 FLOP"],
                loop_flops=8,
            ),
            candidate("shared", 2, unresolved="2 threads had 1.1 CPUs", warnings=["A/A 1.4"]),
            candidate("k.py:f", by="mine", layouts="contiguous only"),
            candidate(
                "b.c:g",
                by="mine",
                reference=True,
                failed="signal 11",
                traceback="in <g>",
                turns=[[1e9]] * 6,
                seconds=cells.Interval(1e9, 1e9, 1e9, 0.9),
            ),
            candidate("NumPy", reference=True),
            candidate("NumPy", by="numpy", reference=True),
        ]
    )
    text = shown(case)
    for said in (
        "hottest loop of tiles: 1 FMA ×4: 8 FLOP, 0.80 ns at the peak f: jne <1>",
        "first ms IPC misses", "1.50 1.5 M instr. 20",
        "shared ×2 The idea of shared. no verdict: 2 threads had 1.1 CPUs A/A 1.4",
        "1.25–1.25 no verdict",
        "your kernels; gain: their speedup over the kernel of training on as many threads",
        "k.py:f mine The idea of k.py:f. contiguous only",
        "b.c:g mine The idea of b.c:g. FAILED: signal 11 traceback in <g>",
        "NumPy (ours) The idea", "NumPy (peer numpy) The idea",
    ):  # fmt: skip
        assert said in text
    assert "IPC" not in USUAL.text
    viewed = page.view(case, {}, 3)
    assert viewed["decades"] < 6  # The failed kernel has no bar.
    groups = viewed["groups"]
    kinds = [row["bar"]["kind"] for group in groups for row in group if row["bar"]]
    assert kinds == ["first", "same up", "mine", "references", "references"]


def test_without_a_round_there_is_a_table_and_no_roofline() -> None:
    rows = [candidate("loops", turns=[]), candidate("shared", 2, turns=[])]
    limits = [{**limit(name, 1), "turns": list[Any]()} for name in ("peak", "triad")]
    text = shown(record(rows=rows, limits=limits, controls=rows[1:], rounds=0))
    assert "stopped after 0 of 6 rounds" in text
    assert "The idea of loops. no turn" in text
    assert "Roofline" not in text


def test_a_sweep_is_drawn_for_each_direction_and_its_sizes_are_folded() -> None:
    cases = [
        record(sizes=dict.fromkeys("NCK", size), shape=f"N={size}", direction=direction)
        for direction in ("forward", "dx")
        for size in (64, 128)
    ]
    options = {**found()["options"], "sweep": {"letters": [], "numbers": [64, 128]}}
    whole = page.render(found(*cases, options=options))
    assert whole.count("data:image/svg+xml;base64,") == 2
    assert 'alt="GB/s of matmul dx against N=C=K; ' in whole
    assert whole.count('<details class="size"><summary>matmul, N=') == 2
    assert Page(whole).open == []
    assert 'type="radio"' not in whole


def test_the_blocks_of_notes() -> None:
    notes = (
        "One: this.\n\n- one\n  thing\n- two\n\na b: one\n  thing\nc: two\n\nIt: this\nand. So: it."
    )
    assert list(page.blocks(notes)) == [
        ("paragraph", "One: this."), ("list", ["one thing", "two"]),
        ("terms", [("a b", "one thing"), ("c", "two")]), ("paragraph", "It: this and. So: it."),
    ]  # fmt: skip


def test_a_bar_tells_the_numbers_when_hovered() -> None:
    (label,) = (bar for bar in USUAL.labels if bar.startswith("tiles"))
    assert label.splitlines() == [
        "tiles: 10.25 ms (min 10, max 10.5)",
        "turns in 6 of 6 rounds",
        "over the serial rung above: 4.00 (4.00–4.00) at 97%, ▲ faster",
        "7.8 GFLOP/s, 3.9 GB/s",
        "78% (76%–80%) of the limit, compute",
    ]


def view(**changes: Any) -> tuple[list[list[str]], dict[str, dict[str, Any]]]:
    """Return the names of the rows by group, and the rows as the template shows them."""
    groups = page.view(record(**changes), {}, 3)["groups"]
    rows = {row["name"]: row for group in groups for row in group}
    return [[row["name"] for row in group] for group in groups], rows


def test_bars_start_at_the_speed_of_the_rung_above_and_end_at_their_own() -> None:
    groups, rows = view()
    assert groups == [["loops", "tiles", "shared ×2"], ["theirs"]]
    words = [row["words"] for row in rows.values()]
    assert words == ["", "▲ faster", "▲ faster", "▲ ours faster"]
    first, tiles, shared, _ = (row["bar"] for row in rows.values())
    assert (first["kind"], first["start"]) == ("first", first["end"])
    assert (tiles["kind"], tiles["start"]) == ("faster up", pytest.approx(first["end"]))
    assert first["roof"] == shared["roof"] > tiles["end"]
    lost = [candidate("tiles"), candidate("loops", turns=[[0.04], None, *[[0.04]] * 4])]
    _, rows = view(rows=[*lost, candidate("shared", 2)], bytes=160e6)
    above, bar = rows["tiles"]["bar"], rows["loops"]["bar"]
    assert (rows["loops"]["words"], bar["kind"]) == ("▼ slower", "slower down")
    assert bar["start"] < bar["end"] == pytest.approx(above["end"], rel=0.01)
    assert "turns in 5 of 6 rounds" in rows["loops"]["tip"]
    # With twice as many bytes moving takes longer than computing: 5 FLOP/s.
    scale = Axis(1e9, 80e9 / 8.2 * 1.15, 0, 100)
    assert bar["roof"] == pytest.approx(scale.place(5e9))


def test_a_roofline_has_the_limits_that_were_measured_with_the_case(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(page.roofline, "draw", draw := Mock())
    page.view(record(), {1: {"peak": 5.0, "L1": 3.0, "L2": 2.0}}, 6)
    roofs = {1: {"peak": 10e9, "L1": 10e9, "L2": 2.0}, 2: {"peak": 10e9, "L1": 10e9}}
    intensity, rows, above = draw.call_args.args
    assert (intensity, above) == (2.0, roofs)
    assert [row["name"] for row in rows] == ["loops", "tiles", "shared ×2", "theirs"]
