"""The clock against others: what is paired, and the table."""

import io
from typing import Any
from unittest.mock import Mock

import pytest
from rich.console import Console

from benchmarks import clock
from benchmarks.harness.analysis import Interval


def row(name: str, unit: str, seconds: list[float], **about: Any) -> dict[str, Any]:
    turns = [[each, each / 2, 3 * each] for each in seconds]
    return {"rung": name, "unit": unit, "turns": turns, "waits": [0.0] * len(turns), **about}


def test_times_are_compared_within_rounds_and_those_of_limits_per_unit() -> None:
    record = {
        "rows": [
            row("peak", "GFLOP/s", [2.0, 4.0, 2.0], amount=1e10),
            row("matmul", "ms", [1e-3, 1e-3, 2e-3]),
        ],
        "controls": [
            row("peak", "GFLOP/s", [1e-10, 2e-10, 4e-10]), row("matmul", "ms", [2e-3, 2e-3, 2e-3])
        ],
    }  # fmt: skip
    peak, matmul = clock.results(record)
    assert peak["here"][:3] == pytest.approx((2e-10, 2e-10, 4e-10))
    assert peak["there"][:3] == pytest.approx((2e-10, 1e-10, 4e-10))
    assert peak["ratio"][:3] == pytest.approx((0.5, 0.5, 2.0))
    assert matmul["ratio"][:3] == pytest.approx((2.0, 1.0, 2.0))


def test_the_table_says_which_are_within_ten_per_cent() -> None:
    ratios = {"close": 1.09, "slow": 1.11, "near": 0.92, "fast": 0.90}
    results = [
        {"name": name, "unit": "GB/s", "here": Interval(1e-10, 0, 0, 0.9),
         "there": Interval(1e-10 * ratio, 0, 0, 0.9), "ratio": Interval(ratio, 0.8, 1.2, 0.9)}
        for name, ratio in ratios.items()
    ]  # fmt: skip
    times = {"here": Interval(2e-3, 0, 0, 0.9), "there": Interval(2.18e-3, 0, 0, 0.9)}
    results[0] |= {"unit": "ms", **times}
    console = Console(file=io.StringIO(), width=80, record=True)
    clock.show(results, console)
    lines = [" ".join(line.split()) for line in console.export_text().split("\n") if line.strip()]
    assert lines[-5:-1] == [
        "close, ms 2 2.18 1.09 (0.80–1.20) yes", "slow, GB/s 10.0 9.01 1.11 (0.80–1.20) no",
        "near, GB/s 10.0 10.9 0.92 (0.80–1.20) yes", "fast, GB/s 10.0 11.1 0.90 (0.80–1.20) no",
    ]  # fmt: skip
    assert lines[-1] == "2 of 4 are within 10 %"


def asked(pairs: Any) -> list[tuple[str, str]]:
    return [(here.about["rung"], here.about["unit"]) for here, there in pairs
            if here.about == there.about]  # fmt: skip


def test_limits_and_kernels_are_opened_for_both_clocks() -> None:
    here, there = Mock(), Mock()
    for process in (here, there):
        process.fork.return_value.ask.return_value = {}
    caches = {"L1": 1 << 15, "L2": 1 << 20, "L3": 1 << 25}
    assert asked(clock.pairs_of_limits(here, there, caches, 4)) == [
        ("peak, 1 thread", "GFLOP/s"), ("peak, 4 threads", "GFLOP/s"),
        ("triad, L2, 1 thread", "GB/s"), ("triad, memory, 1 thread", "GB/s"),
    ]  # fmt: skip
    requests = [call.kwargs for call in there.fork.return_value.ask.call_args_list]
    assert [each["size"] for each in requests] == [0, 0, 1 << 19, 1 << 27]
    assert [each["threads"] for each in requests] == [1, 4, 1, 1]
    names = [name for name, _ in asked(clock.pairs_of_kernels(here, Mock()))]
    cases = [" ".join(case) for case in clock.KERNELS]
    assert [name.partition(", ")[0] for name in names] == [each for each in cases for _ in range(2)]
    assert sum(name.endswith("NumPy") for name in names) == len(cases)


@pytest.mark.slow  # Several processes.
def test_a_run_compares_both_clocks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clock, "KERNELS", (("softmax", "forward", "awkward"),))
    monkeypatch.setattr("benchmarks.machine.caches", lambda: {"L1": 1 << 14, "L2": 1 << 16})
    assert clock.run(1, 1, None)
    said = capsys.readouterr()
    assert "softmax forward awkward, NumPy, ms" in said.out
    assert "peak, 1 thread, GFLOP/s" in said.out or "C was left out" in said.err
