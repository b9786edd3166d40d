"""The command scaling: what it measures, shows and writes, with stand-ins for all that is slow."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from xml.etree import ElementTree

import pytest

from benchmarks import __main__ as command
from benchmarks import network, scaling, two_ranks
from benchmarks.harness import mpi
from benchmarks.network import Machine
from benchmarks.render import scaling as shown
from benchmarks.scaling import Measured
from benchmarks.two_ranks import ALONE, TOGETHER

SIZES = scaling.workload(12, 1024, 50257)
SMALL = scaling.workload(2, 256, 50257)
FAST = Measured(SMALL, Machine(packing=0.01, step=0.02, update=0.004, adding=1e-11), factor=2.0)


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace what is measured."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(scaling, "measure", Mock(return_value=FAST))
    monkeypatch.setattr(mpi, "missing", Mock(return_value=None))
    monkeypatch.setattr(scaling, "reductions", Mock(return_value=rows_of_reductions()))
    monkeypatch.setattr(two_ranks, "speeds", {ALONE: [100.0, 110.0], TOGETHER: [90.0, 99.0]}.get)


def rows_of_reductions() -> list[dict[str, Any]]:
    return [
        {"ranks": 2, "size": size, "allreduce": 1e-6 + size / 4e9, "exchange": 1e-5 + size / 2e9}
        for size in (4096, 10**6, 10**8)
    ]


def run(path: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    with pytest.raises(SystemExit) as left:
        command.main(["scaling", "--json", str(path), *arguments])
    assert isinstance(left.value.code, int)
    return left.value.code, json.loads(path.read_text(encoding="utf-8"))


def test_a_run_is_shown_written_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = run(tmp_path / "all.json", "--accumulation", "6", "3", "--rounds", "2")
    assert (code, found["complete"], found["benchmark"]) == (0, True, "scaling")
    results, out = found["results"], capsys.readouterr().out
    rows = {(row["accumulation"], row["gigabits"], row["reduction"], row["ranks"])
            for row in results["predictions"]}  # fmt: skip
    machines = [(6, ranks) for ranks in (1, 2, 3, 6)] + [(3, ranks) for ranks in (1, 3)]
    assert rows == {(steps, speed, reduction, ranks) for steps, ranks in machines
                    for speed in (10, 100) for reduction in ("exact", "fast")}  # fmt: skip
    assert len(results["reduction"]) == 3
    assert results["check"]["speeds"][TOGETHER] == [[90, 99]] * 2
    assert "two ranks have 0.900 of the speed (median of 2 pairs, 0.90–0.90): at least 0.85" in out
    assert "exchange: 12.0 µs + bytes / (2.00 GB/s)" in out
    svg = (tmp_path / "all.svg").read_text(encoding="utf-8")
    words = {each.text for each in ElementTree.fromstring(svg).iter() if each.text}
    assert {"6 accumulation steps", "3 accumulation steps", "machines"} < words
    assert {"a step at 10 Gb/s, seconds", "efficiency at 100 Gb/s, speedup / machines"} < words


def test_without_mpi_the_predictions_are_shown_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = f"not installed: {mpi.INSTALL}"
    monkeypatch.setattr(mpi, "missing", Mock(return_value=reason))
    code, found = run(tmp_path / "all.json", "--gigabits", "25")
    assert (code, found["complete"]) == (0, True)
    assert {*found["results"]} == {"compute", "predictions", "begins"}
    out, errors = capsys.readouterr()
    assert "1,024 accumulation steps at 25 Gb/s: " in out
    assert "left out: reduction: not installed: pip install '.[mpi]'" in errors


def test_an_interrupt_keeps_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> Iterator[dict[str, Any]]:
        yield rows_of_reductions()[0]
        raise KeyboardInterrupt

    monkeypatch.setattr(scaling, "reductions", interrupted)
    code, found = run(tmp_path / "all.json", "--accumulation", "8")
    assert (code, found["complete"]) == (130, False)
    assert len(found["results"]["reduction"]) == 1
    assert len(found["results"]["predictions"]) == 16
    assert (tmp_path / "all.svg").exists()


def test_the_pairs_before_an_interrupt_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [[100.0], [95.0], [100.0], KeyboardInterrupt]
    monkeypatch.setattr(two_ranks, "speeds", Mock(side_effect=runs))
    code, found = run(tmp_path / "all.json", "--accumulation", "8")
    assert (code, found["complete"]) == (130, False)
    assert found["results"]["check"]["speeds"] == {ALONE: [[100], [100]], TOGETHER: [[95]]}
    assert "two ranks have 0.950 of the speed (median of 1 pair, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--gigabits 0", "argument --gigabits: must be from 0.001 to 1000000.0, not 0"),
        ("--gigabits ten", "argument --gigabits: invalid float value: 'ten'"),
        ("--latency-us -1", "argument --latency-us: must be from 0 to 1000000.0, not -1"),
        ("--accumulation 0", "argument --accumulation: must be from 1 to 65536, not 0"),
        ("--batch-size 0", "argument --batch-size: must be from 1 to 1000000, not 0"),
        ("--json all.txt", "must be a file that ends in .json, not all.txt"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    arguments: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        command.main(["scaling", *arguments.split()])
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert line in said
    assert said.count("\n") == 1


def test_the_gradients_are_those_of_gpt2_and_the_embeddings_are_late() -> None:
    job = scaling.job(SIZES, 40, 2)
    # nanoGPT's count without biases; 50,257 tokens and 1,024 positions of 768 numbers.
    assert job.size == 4 * 124_337_664
    assert job.late == pytest.approx((50257 + 1024) * 768 / 124_337_664)


@pytest.mark.parametrize(("threads", "rounds"), [(1, 12), (2, 6), (5, 3), (12, 1), (64, 1)])
def test_gradients_become_complete_in_the_backward_of_the_last_micro_batches(
    threads: int, rounds: int
) -> None:
    # Each of the 12 sequences is a micro-batch.
    assert scaling.job(SIZES, 40, threads).window == pytest.approx(2 / 3 / rounds)


def beginning(**changed: Any) -> dict[str, Any]:
    row = {"accumulation": 40, "gigabits": 10.0, "from": None, "share": 0.0123, "ranks": 40}
    return row | {"times_as_fast": 3.25} | changed


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"from": 20, "share": 0.714}, "from 20 machines on; 71% of the step on 40 machines"),
        ({}, "never; at most 1.2% of the step on 40 machines; half if machines were 3.25 times as"),
        ({"ranks": 1, "times_as_fast": None}, "never, because only one machine has work"),
    ],
)
def test_the_text_says_where_communication_begins_to_dominate(
    changed: dict[str, Any], said: str
) -> None:
    line = shown.begins(beginning(**changed))
    assert line.startswith(f"- 40 accumulation steps at 10 Gb/s: {said}")


def test_where_it_begins_is_the_first_prediction_with_more_than_half() -> None:
    machine, between = FAST.scaled, network.Network(20e-6, 1.25e9)
    jobs = [scaling.job(SIZES, steps, 2) for steps in (1, 64)]
    one, many = scaling.starts(jobs, machine, {10.0: between})
    assert (one["ranks"], one["from"], one["times_as_fast"]) == (1, None, None)
    rows = scaling.predicted(jobs[1:], machine, {10.0: between})
    exact = [row for row in rows if row["reduction"] == "exact"]
    shares = {row["ranks"]: row["share"] for row in exact}
    assert many["from"] == min(ranks for ranks, share in shares.items() if share > 0.5) > 1
    assert many["share"] == max(shares.values())


def test_the_text_says_how_accumulation_moves_the_point() -> None:
    points = [(8, 10.0, 9.4), (40, 10.0, 46.6), (8, 100.0, 90.0), (40, 100.0, 180.0)]
    rows = [beginning(accumulation=steps, gigabits=gigabits, break_even=even)
            for steps, gigabits, even in points]  # fmt: skip
    ten, hundred, limit = shown.moves(rows)
    assert "on 9 machines with 8, 47 machines with 40 of them. So 5.00 times as many" in ten
    assert ten.endswith("accumulation steps allow 4.96 times as many machines.")
    assert hundred.endswith("2.00 times as many machines: the messages of a machine increase, too.")
    assert limit.startswith("More machines than accumulation steps have no work")
    only, _ = shown.moves(rows[:1])
    assert only.endswith("on 9 machines with 8 of them.")


def test_what_was_scaled_is_said_and_nothing_if_nothing_was() -> None:
    options = {"threads": 2, "latency_us": 20.0}
    job = scaling.job(SIZES, 40, 2)
    lines = [*shown.assumed(asdict(FAST), asdict(SIZES), job, options)]
    (scaled,) = (line for line in lines if line.startswith("Scaled"))
    assert scaled == (
        "Scaled: an accumulation step of B=12, T=1024 has 2.00 times as many FLOPs, and is taken "
        "to last that many times as long: 0.04 s."
    )
    same = asdict(Measured(SMALL, FAST.machine, 1.0))
    assert len([*shown.assumed(same, asdict(SMALL), job, options)]) == len(lines) - 1


@pytest.mark.parametrize(
    ("ratios", "said"),
    [((0.8, 0.85, 0.9), "0.850 of the speed (median of 3 pairs, 0.80–0.90): at least 0.85"),
     ((0.84,), "0.840 of the speed (median of 1 pair, 0.84–0.84): LESS than 0.85")],
)  # fmt: skip
def test_the_verdict_is_that_of_the_median_pair(ratios: tuple[float, ...], said: str) -> None:
    assert shown.verdict(ratios) == f"two ranks have {said}"
