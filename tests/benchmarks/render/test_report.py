"""Tables on the terminal."""

from typing import Any

from helpers.kernel_results import CACHES, candidate, limit, record
from rich.console import Console

from benchmarks.harness.analysis import analyse
from benchmarks.render import report

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
        "1 thread: 10 GFLOP/s, 10 GB/s (L1); 2 threads: 10 GFLOP/s, 10 GB/s (L1); "
        "A/A: tiles against itself 1.00 (1.00–1.00); A/A: shared ×2 against itself 1.00",
        "(1.00–1.00)",
        "[red] is WRONG: y[0] is nan",
    ]


def test_a_model_has_tokens_per_second_its_range_memory_and_warm_up_but_no_verdict() -> None:
    rows = [candidate("ours", memory=7e6, warm_up_seconds=5.0), candidate("once")]
    for row in rows:
        row["turns"] = row["turns"][:1]  # A single round has no interval.
    model = {"name": "cpu", "tokens": 768, "rounds": 1, "flops": 1e5, "controls": [], "rows": rows}
    assert lines(shown(analyse({**model, "limits": [limit("peak", 1)]}, CACHES))) == [
        "cpu: 100 kFLOP; 1 rounds",
        "first ms ms min – max gain tokens/s GFLOP/s of limit MB warm-up s",
        "ours 7 1 1 – 1 768,000 0.10 1% com 7 5.0",
        "once 7 1 1 – 1 1.00 768,000 0.10 1% com",
        "1 thread: 10 GFLOP/s",
    ]


def test_in_a_narrow_window_columns_are_left_out_but_no_number_is_cut() -> None:
    for width in (60, 70, 80, 95):
        text = shown(record(rows=ROWS[:-1]), width)
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
        assert "10.25   4.00 (4.00–4.00) ▲" in text
    assert "compile" not in shown(record(rows=ROWS), 60)


def test_the_limits_of_the_machine_have_a_column_for_each_number_of_threads() -> None:
    limits = [
        {"name": name, "where": where, "threads": threads, "rate": (94.4e9, 90e9, 97e9, 0.9)}
        for threads in (1, 2)
        for name, where in (("peak", None), ("triad", "L2"))
    ]
    console = Console(width=80)
    with console.capture() as capture:
        report.show_limits({"limits": limits, "options": {"threads": [1, 2], "asm": True}}, console)
    rows = lines(capture.get())
    assert rows[1:4] == [
        "limit 1 thread 2 threads",
        "peak, GFLOP/s 94 (90 – 97) 94 (90 – 97)",
        "triad, L2, GB/s 94 (90 – 97) 94 (90 – 97)",
    ]
    assert "packed: fraction" in " ".join(rows)
