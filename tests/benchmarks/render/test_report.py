"""Tables on the terminal."""

from typing import Any

import pytest
from helpers.kernel_results import candidate, limit, record
from rich.console import Console

from benchmarks.harness.analysis import analyse
from benchmarks.render import cells, report

ROWS = [
    candidate("theirs", by="torch", reference=True),
    candidate("[red]", wrong="y[0] is nan", turns=[]),
    candidate("loops", packed=0.5),
    candidate("tiles", compile_seconds=0.25, packed=0.004),
    candidate("shared", 2, compile_seconds=0.0),
    candidate("slow", able=False, turns=[]),
    candidate("lost", turns=[]),
    candidate("absent", by="llmc", reference=True, able=False, offered=False, turns=[]),
]


def shown(case: dict[str, Any], width: int = 160) -> str:
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        report.show(case, console)
    return capture.get()


def lines(text: str) -> list[str]:
    """Return the lines with text, with single spaces."""
    found = [" ".join(line.split()) for line in text.splitlines()]
    return [line for line in found if line.strip(" ─")]


def test_a_ladder_is_shown_with_its_cost_references_and_limits() -> None:
    assert lines(shown(record(rows=ROWS))) == [
        "matmul forward, cpu: M 1,024; 80 MFLOP, 40 MB; 6 rounds",
        "compile s first ms ms gain GFLOP/s GB/s of limit packed",
        "[red] 7 WRONG",
        "loops 7 41 1.95 0.98 20% com 50%",
        "tiles 0.25 7 10.25 4.00 (4.00–4.00) ▲ 7.80 3.90 78% com 0.4%",
        "shared ×2 cached 7 8.2 1.25 (1.25–1.25) ▲ 9.76 4.88 98% com",
        "slow 7 too slow",
        "lost 7 no turn",
        "theirs 7 20.5 2.00 (2.00–2.00) ▲ 3.90 1.95 39% com",
        "absent 7 not offered",
        "[red] is WRONG: y[0] is nan",
        "1 thread: 10 GFLOP/s, 10 GB/s (L1); 2 threads: 10 GFLOP/s, 10 GB/s (L1); "
        "A/A: tiles 1.00 (1.00–1.00), shared ×2 1.00 (1.00–1.00)",
    ]


def test_what_is_to_be_known_of_a_row_stands_below_the_table() -> None:
    slept = {"unresolved": "2 threads had 1.1 CPUs", "warnings": ["A/A ratio 1.4"]}
    traceback = (
        "".join(f"line {number}\n" for number in range(9)) + "  ~~^^\nIndexError: [b] is out\n"
    )
    rows = [
        candidate("tiles", warnings=["A/A ratio 1.4"]),
        candidate("shared", 2, **slept),
        candidate("a [b]", by="mine", failed="IndexError: [b] is out", traceback=traceback),
        candidate("theirs", by="torch", reference=True, layouts="contiguous only"),
    ]
    rows = lines(shown(record(rows=rows)))[2:-1]
    assert [row.split(" 7 ")[0] for row in rows] == [
        "tiles [1]", "shared ×2 [2] [1]", "a [b]", "theirs [3]",
        "[1] A/A ratio 1.4", "[2] no verdict: 2 threads had 1.1 CPUs", "[3] contiguous only",
        "a [b] FAILED: IndexError: [b] is out",
        "line 6", "line 7", "line 8", "IndexError: [b] is out",
    ]  # fmt: skip
    assert "1.25 (1.25–1.25) ?" in rows[1]
    assert rows[2] == "a [b] 7 FAILED"


def test_a_kernel_of_the_user_is_compared_with_others_below_the_table() -> None:
    mine = candidate("k.py:f", by="mine", reference=True, turns=[[0.005]] * 6)
    assert "k.py:f, times as fast: 2.05 (2.00–2.10) ▲ as tiles" in shown(
        record(rows=[candidate("tiles"), mine])
    )


def test_a_model_has_tokens_per_second_its_range_memory_and_warm_up_but_no_verdict() -> None:
    rows = [candidate("ours", memory=7e6, warm_up_seconds=5.0), candidate("once")]
    peak = limit("peak", 1)
    for each in (*rows, peak):
        each["turns"] = each["turns"][:1]  # A single round has no interval.
    model = {"name": "cpu", "tokens": 768, "rounds": 1, "flops": 1e5, "controls": [], "rows": rows}
    assert lines(shown(analyse({**model, "limits": [peak]}, []))) == [
        "cpu: 100 kFLOP; 1 rounds",
        "first ms ms min – max gain tokens/s GFLOP/s of limit MB warm-up s",
        "ours 7 1 1 – 1 768,000 0.10 1% com 7 5.0",
        "once 7 1 1 – 1 1.00 768,000 0.10 1% com",
        "1 thread: 10 GFLOP/s",
    ]


def test_the_hottest_loops_of_trained_kernels_and_those_of_the_user_are_shown() -> None:
    loop = ["tile, nesting depth 2:", *["  jne [1]"] * 30, "1 FMA ×4: 8 FLOP per iteration"]
    divided = ["f, nesting depth 1:", "1 arithmetic ×1: 1 FLOP per iteration"]
    rows = [
        candidate("loops", loop=["not this"], loop_flops=8),
        candidate("tiles", loop=loop, loop_flops=8),
        candidate("shared", 2, loop=loop, loop_flops=8),
        candidate("k.py:f", loop=divided, loop_flops=1, by="mine"),
        candidate("k.c:f", loop=["objdump is needed"], loop_flops=0, by="mine"),
        candidate("empty", loop=[], by="mine"),
    ]
    text = shown(record(rows=rows))
    # The peak is 10 GFLOP/s.
    first = "hottest loop of tiles: 1 FMA ×4: 8 FLOP per iteration, 0.80 ns at the peak\n"
    assert f"{first}tile, nesting depth 2:\n  jne [1]\n" in text
    assert text.count("jne [1]") == report.LOOP_LINES - 1
    second = "hottest loop of k.py:f: 1 arithmetic ×1: 1 FLOP per iteration\n"
    assert f"  … the others are on the page\n{second}f, nesting depth 1:\n" in text
    assert "hottest loop of k.c:f: objdump is needed\n" in text
    assert text.count("hottest loop") == 3


def rungs_of_all_sizes() -> list[dict[str, Any]]:
    """Return rows with long names, equal names, 128 threads, and times from 1 ns to 3 minutes."""
    names = (
        "a rung whose name has more than 40 letters", "antidisestablishmentarianism_of_a_kernel",
        "mine: my_kernel.py:product", "NumPy", "x",
    )  # fmt: skip
    whose = ("ours", "torch", "llmc", "numpy", "mine")
    return [
        candidate(
            name, threads, by=by, reference=by != "ours", packed=0.004,
            compile_seconds=123.456, first_seconds=60.0, warnings=[f"{by} is noisy"],
            trained=name == "x" and by == "ours",
            counters={"instructions": 3e13, "cycles": 1.5e11, "misses": 2.5e10},
            turns=[[seconds * (1 + part / 30)] for part in range(6)],
        )
        for seconds, by in zip((1.23e-9, 4.56e-7, 7.89e-5, 0.0123, 187.6), whose, strict=True)
        for threads in (1, 128)
        for name in names
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("width", "last"), [(40, "gain"), (60, "gain"), (80, "of limit"), (200, "misses")]
)
def test_in_a_narrow_window_columns_are_left_out_and_names_wrap_but_no_number_is_cut(
    width: int, last: str
) -> None:
    case = record(rows=rungs_of_all_sizes(), controls=[])
    table = shown(case, width).split("[1] ours is noisy")[0]
    heads, line, *rows = table[table.index(" rounds\n") + 8 :].splitlines()
    assert heads.endswith(f" {last}")
    assert max(map(len, rows)) == len(line) <= max(width, 57)
    columns = [name for name in report.COLUMNS if f" {name}" in heads]
    written = set("\n".join(rows).split())
    for row in case["rows"]:
        figures = cells.figures(case, row)
        for value, note in (figures[name] for name in columns if name in figures):
            spread = {f"({note})"} if "–" in note else set[str]()
            assert {*value.split(), *spread} <= written
    (name, *_) = cells.names(case["rows"])
    assert set(name.split()) <= written


def test_the_limits_of_the_machine_have_a_column_for_each_number_of_threads() -> None:
    limits = [
        {"name": name, "where": where, "threads": threads, "rate": (94.4e9, 90e9, 97e9, 0.9)}
        for threads in (1, 2)
        for name, where in (("peak", None), ("triad", "L2"))
    ]
    found = {"limits": limits, "options": {"threads": [1, 2], "asm": True}}
    rows = lines(limits_shown(found, 80))
    assert rows[1:4] == [
        "1 thread 2 threads",
        "peak, GFLOP/s 94.4 (90.0–97.0) 94.4 (90.0–97.0)",
        "triad, L2, GB/s 94.4 (90.0–97.0) 94.4 (90.0–97.0)",
    ]
    assert "packed: fraction" in " ".join(rows)


def test_limits_for_many_numbers_of_threads_take_several_tables() -> None:
    counts = [1, 2, 4, 8, 16, 32, 64, 128]
    limits = [
        {"name": name, "where": where, "threads": threads, "rate": (9e12, 8e12, 1e13, 0.9)}
        for threads in counts
        for name, where in (("peak", None), ("triad", "memory"))
        if (name, threads) != ("triad", 1)
    ]
    for width in (60, 80, 120):
        text = limits_shown({"limits": limits, "options": {"threads": counts}}, width)
        assert "…" not in text
        assert text.count("9,000 (8,000–10,000)") == 15
        assert max(map(len, text.splitlines())) <= width


def limits_shown(found: dict[str, Any], width: int) -> str:
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        report.show_limits(found, console)
    return capture.get()
