"""Times, gains, verdicts and the fraction of the limit."""

from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.harness.analysis import FASTER, SAME, SLOWER, analyse, cache_of

CACHES = {"L1": 1000, "L2": 10_000}


def row(name: str, seconds: list[Any], **more: Any) -> dict[str, Any]:
    """Return a serial rung of ours with the seconds of each round."""
    turns = [None if each is None else [each, each, each] for each in seconds]
    about = {"rung": name, "by": "ours", "threads": 1, "reference": False, "able": True}
    return {**about, "turns": turns, **more}


def limit(name: str, amount: float, seconds: list[float], threads: int = 1) -> dict[str, Any]:
    turns = [[2 * each, each] for each in seconds]
    return {"name": name, "threads": threads, "amount": amount, "turns": turns}


def record(*rows: dict[str, Any], controls: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Return a case of 600 FLOPs and 100 bytes; the machine does 1000 FLOP/s and 100 B/s."""
    rounds = len(rows[0]["turns"])
    limits = [limit("peak", 1000, [1.0] * rounds), limit("triad", 100, [1.0] * rounds)]
    return {
        "flops": 600, "bytes": 100, "working_set": 1500, "rows": list(rows),
        "limits": limits, "controls": [*controls],
        "rounds": rounds,
    }  # fmt: skip


def analysed(
    *rows: dict[str, Any], controls: Sequence[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    found = analyse(record(*rows, controls=controls), CACHES)
    return found["rows"]


SLOW = row("slow", [4.0, 8.0, 4.0, 4.0, 4.0, 4.0])
FAST = row("fast", [2.0, 4.0, 2.0, 2.0, 2.0, 2.0])
TWIN = row("fast", [2.0, 4.2, 2.1, 1.9, 2.0, 2.0])


def test_the_time_is_that_of_the_median_round() -> None:
    (found,) = analysed(FAST)
    assert found["seconds"].median == 2.0
    assert found["range"] == (2.0, 4.0)


def test_a_gain_is_over_the_rung_above_within_the_round() -> None:
    first, second = analysed(SLOW, FAST)
    assert "gain" not in first
    assert second["gain"].median == 2.0
    assert (second["gain"].low, second["gain"].high) == (2.0, 2.0)


def test_a_rung_on_several_threads_is_compared_with_the_serial_one() -> None:
    two = row("parallel", [1.0] * 6, threads=2)
    four = row("parallel", [0.5] * 6, threads=4)
    found = analysed(row("serial", [2.0] * 6), two, four)
    assert [each["gain"].median for each in found[1:]] == [2.0, 4.0]


def test_a_rung_that_was_not_measured_is_passed_over() -> None:
    wrong = row("wrong", [], wrong="probs[0] is 1")
    found = analysed(SLOW, wrong, FAST)
    assert "seconds" not in found[1]
    assert found[2]["gain"].median == 2.0


def test_a_gain_beyond_the_control_is_called_faster() -> None:
    assert analysed(SLOW, FAST, controls=[TWIN])[1]["verdict"] == FASTER


def test_a_loss_beyond_the_control_is_called_slower() -> None:
    assert (
        analysed(FAST, SLOW, controls=[row("fast", [2.0, 4.2, 2.1, 1.9, 2.0, 2.0])])[1]["verdict"]
        == SLOWER
    )


def test_within_the_control_nothing_is_called_faster() -> None:
    better = row("better", [1.9, 3.8, 1.9, 1.9, 1.9, 1.9])
    control = row("better", [1.7, 3.4, 1.9, 2.1, 1.7, 2.1])
    found = analysed(FAST, better, controls=[control])
    assert found[1]["gain"].low > 1
    assert found[1]["verdict"] == SAME


def test_few_rounds_resolve_nothing() -> None:
    slow, fast = row("slow", [4.0] * 4), row("fast", [2.0] * 4)
    assert analysed(slow, fast, controls=[fast])[1]["verdict"] == SAME


def test_an_interval_with_1_in_it_says_nothing() -> None:
    mixed = row("mixed", [1.0, 4.1, 2.1, 1.0, 1.0, 2.1])
    assert analysed(FAST, mixed, controls=[row("fast", [2.0] * 6)])[1]["verdict"] == SAME


def test_without_a_control_nothing_is_called_faster() -> None:
    assert analysed(SLOW, FAST)[1]["verdict"] == SAME


def test_the_control_is_held_against_the_row_it_repeats() -> None:
    twin = row("fast", [1.0, 2.0, 1.0, 1.0, 1.0, 1.0])
    found = analyse(record(SLOW, FAST, controls=[twin]), CACHES)
    assert found["controls"][0]["ratio"].median == 2.0


def test_a_control_that_was_slower_than_itself_also_says_how_much_a_gain_may_be_chance() -> None:
    better = row("better", [1.9, 3.8, 1.9, 1.9, 1.9, 1.9])
    control = row("better", [2.4, 4.8, 2.4, 2.4, 2.4, 2.4])
    assert analysed(FAST, better, controls=[control])[1]["verdict"] == SAME


def test_a_control_counts_for_as_many_threads_as_it_has() -> None:
    two = row("parallel", [1.0] * 6, threads=2)
    noisy = row("parallel", [0.2, 5.0, 1.0, 1.0, 5.0, 0.2], threads=2)
    found = analysed(SLOW, FAST, two, controls=[TWIN, noisy])
    assert [each["verdict"] for each in found[1:]] == [FASTER, SAME]


def test_a_reference_is_held_against_our_last_rung_on_as_many_threads() -> None:
    parallel = row("parallel", [1.0] * 6, threads=2)
    found = analysed(
        row("serial", [2.0] * 6), parallel,
        row("BLAS", [3.0] * 6, reference=True), row("BLAS", [3.0] * 6, reference=True, threads=2),
    )  # fmt: skip
    assert [each["by_ours"].median for each in found[2:]] == [1.5, 3.0]


def test_a_reference_is_no_step_of_the_ladder() -> None:
    found = analysed(SLOW, row("BLAS", [1.0] * 6, reference=True), FAST)
    assert found[2]["gain"].median == 2.0


def test_the_share_of_the_limit_is_taken_of_the_most_that_the_machine_did() -> None:
    """Moving the bytes takes 1 s at best, computing 0.6 s."""
    found = record(row("kernel", [2.0, 4.0, 2.0]))
    found["limits"] = [limit("peak", 1000, [2.0, 1.0, 2.0]), limit("triad", 100, [2.0, 2.0, 1.0])]
    (row_found,) = analyse(found, CACHES)["rows"]
    assert row_found["bound"] == "memory"
    fraction = row_found["fraction"]
    assert (fraction.low, fraction.median, fraction.high) == (0.25, 0.5, 0.5)


def test_the_bandwidth_is_that_of_the_faster_way_to_move_bytes() -> None:
    found = record(row("kernel", [2.0] * 3))
    found["limits"].append(limit("update", 125, [1.0] * 3))
    (row_found,) = analyse(found, CACHES)["rows"]
    assert row_found["fraction"].median == 0.4


def test_where_computing_takes_longer_that_is_the_limit() -> None:
    found = record(row("kernel", [2.0] * 3))
    found["flops"] = 1500
    (row_found,) = analyse(found, CACHES)["rows"]
    assert row_found["bound"] == "compute"
    assert row_found["fraction"].median == 0.75


def test_a_limit_is_that_of_as_many_threads() -> None:
    found = record(row("kernel", [2.0] * 3, threads=2))
    found["limits"] += [limit("peak", 4000, [1.0] * 3, 2), limit("triad", 200, [1.0] * 3, 2)]
    (row_found,) = analyse(found, CACHES)["rows"]
    assert row_found["fraction"].median == 0.25


def test_the_rate_of_a_limit_is_that_of_its_best_sample_and_the_pace_that_of_the_median() -> None:
    found = record(row("kernel", [2.0] * 3))
    found["limits"][0] = limit("peak", 1000, [1.0, 2.0, 3.0])  # medians 1.5, 3 and 4.5
    (peak, _) = analyse(found, CACHES)["limits"]
    assert (peak["rate"], peak["pace"]) == (1000, 3 / 1000)


def test_a_model_is_bound_by_the_peak_alone() -> None:
    found: dict[str, Any] = record(row("step", [2.0] * 3)) | {"bytes": None}
    found["limits"] = [limit("peak", 1000, [1.0] * 3)]
    del found["working_set"]
    (row_found,) = analyse(found, CACHES)["rows"]
    assert row_found["fraction"].median == 0.3


@pytest.mark.parametrize(
    ("size", "threads", "cache"),
    [
        (1000, 1, "L1"),
        (1001, 1, "L2"),
        (10_000, 1, "L2"),
        (10_001, 1, "memory"),
        (2000, 2, "L1"),
        (2001, 2, "L2"),
        (10_001, 2, "memory"),
    ],
)
def test_a_working_set_lies_in_the_smallest_caches_that_hold_it(
    size: int, threads: int, cache: str
) -> None:
    assert cache_of(size, threads, CACHES) == cache


def test_threads_share_the_working_set() -> None:
    found = record(FAST)
    found["limits"] += [limit("peak", 4000, [1.0] * 6, 2), limit("triad", 200, [1.0] * 6, 2)]
    assert analyse(found, CACHES)["cache"] == {"1": "L2", "2": "L1"}


def test_without_a_round_there_is_nothing_to_say() -> None:
    found = record(row("kernel", []))
    assert "seconds" not in analyse(found, CACHES)["rows"][0]
