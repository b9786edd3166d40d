"""The panels of a sweep, and their tables."""

from typing import Any

import pytest
from helpers.kernel_results import candidate, found, limit, record
from rich.console import Console

from benchmarks.render import sweep

OWN: dict[str, Any] = {"letters": [], "numbers": [64, 128]}


def swept(*sizes: int, **changes: Any) -> list[dict[str, Any]]:
    """Return the records of a matmul at some sizes."""
    return [record(sizes=dict.fromkeys("NCK", size), **changes) for size in sizes]


def shown(records: list[dict[str, Any]], width: int = 80, letters: str = "") -> list[str]:
    console = Console(width=width, highlight=False)
    options = {"sweep": {"letters": letters, "numbers": ()}}
    with console.capture() as capture:
        whole = found(options=options) | {"cases": records}
        sweep.show(whole, ("matmul", "forward"), console)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_a_line_has_the_speeds_of_a_candidate_and_of_the_limit_at_each_size() -> None:
    panel = sweep.panel(swept(64, 128, flops=8e9), OWN)
    assert (panel.title, panel.letters, panel.sizes) == ("matmul forward", "N=C=K", [64, 128])
    lines = {line.name: line for line in panel.lines}
    assert {name: (line.kind, line.threads) for name, line in lines.items()} == {
        "loops": ("rung", 1), "tiles": ("trained", 1), "shared ×2": ("trained", 2),
        "theirs": ("theirs torch", 1), "limit": ("limit", 1), "limit ×2": ("limit", 2),
    }  # fmt: skip
    assert panel.unit == "GFLOP/s"
    # 8 GFLOP in 10 to 10.5 ms; the limit of 10 GFLOP/s is below that of 10 GB/s for 40 MB.
    assert lines["tiles"].speeds[128][:3] == pytest.approx((8 / 0.01025, 8 / 0.0105, 8 / 0.01))
    assert lines["limit"].speeds[64].median == pytest.approx(10)


def test_few_flops_per_byte_are_shown_as_bytes_per_second_under_the_bandwidth() -> None:
    panel = sweep.panel(swept(64), OWN)
    (loops, *_, limit, _) = panel.lines
    assert panel.unit == "GB/s"
    assert loops.speeds[64].median == pytest.approx(0.04 / 0.041)
    # 80 MFLOP at 10 GFLOP/s take 8 ms, 40 MB at 10 GB/s less.
    assert limit.speeds[64].median == pytest.approx(5)
    faster = [limit_of("peak", 1, 40e9), limit_of("triad", 1, 10e9)]
    assert sweep.panel(swept(64, limits=faster), OWN).lines[-1].speeds[64].median == 10


def limit_of(name: str, threads: int, amount: float) -> dict[str, Any]:
    return {**limit(name, threads), "amount": amount}


def test_a_table_has_a_line_per_size_and_says_what_is_fixed() -> None:
    lines = shown(swept(64, 1024))
    assert lines[:2] == ["", "matmul forward: GB/s at each size N=C=K"]
    assert lines[2].split() == ["loops", "tiles", "shared", "×2", "theirs", "limit", "limit", "×2"]
    assert lines[4].split() == ["64", "0.98", "3.90", "4.88", "1.95", "5.00", "5.00"]
    assert lines[5].split()[0] == "1,024"
    assert shown(swept(64), letters="K")[1].endswith("at each size K; N 64; C 64")
    assert shown([]) == []


def test_what_has_no_speed_says_why() -> None:
    rows = [
        candidate("loops", able=False, turns=[]),
        candidate("tiles", wrong="y[0] is nan", turns=[]),
        candidate("shared", 2),
    ]
    lines = shown([*swept(64, rows=rows, controls=[]), *swept(128)])
    assert lines[4].split()[:4] == ["64", "too", "slow", "WRONG"]
    assert lines[5].split()[:3] == ["128", "0.98", "3.90"]
    assert lines[-1] == "tiles at N=C=K = 64 is WRONG: y[0] is nan"


def test_speeds_that_prove_nothing_are_marked_with_the_reason() -> None:
    rows = [candidate("loops", unresolved="waited [5 of 6]"), candidate("tiles")]
    lines = shown([*swept(64, 128, rows=rows, controls=[]), *swept(256)])
    assert [line.split()[2] for line in lines[4:7]] == ["?", "?", "3.90"]
    assert lines[-1] == "? loops at 64, 128: waited [5 of 6]"
    others = [candidate("loops", unresolved="waited [4 of 6]"), candidate("tiles")]
    more = swept(256, rows=others, controls=[])
    lines = shown([*swept(64, rows=rows, controls=[]), *more])
    assert lines[-1] == "? loops at 64, 256: waited [5 of 6], and the like"


def test_in_a_narrow_window_there_are_several_tables() -> None:
    lines = shown(swept(64), width=30)
    assert max(map(len, lines)) <= 40  # The title is wrapped by words.
    heads = [line.split() for line in lines if line.startswith("   ")]
    assert [len(head) for head in heads] == [4, 4]
    assert sum(line.startswith("64") for line in lines) == 2
