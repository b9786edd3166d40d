"""What a climb came to: rates, gains, what is called faster, and what bounds it."""

from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.standing import FASTER, SAME, SLOWER, cache_of, stand

CACHES = {"L1": 1000, "L2": 10_000}


def row(name: str, seconds: list[Any], **more: Any) -> dict[str, Any]:
    """A rung of ours on one thread; seconds: of each round."""
    turns = [None if each is None else [each, each, each] for each in seconds]
    about = {"rung": name, "by": "ours", "threads": 1, "reference": False, "able": True}
    return {**about, "seconds": turns, **more}


def limit(name: str, amount: float, seconds: list[float], threads: int = 1) -> dict[str, Any]:
    turns = [[2 * each, each] for each in seconds]
    return {"name": name, "threads": threads, "amount": amount, "seconds": turns}


def record(*rows: dict[str, Any], controls: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """A task of 600 FLOPs and 100 bytes; the peak is 1000 FLOPs a second, memory's 100 bytes."""
    rounds = len(rows[0]["seconds"])
    limits = [limit("peak", 1000, [1.0] * rounds), limit("triad", 100, [1.0] * rounds)]
    return {
        "flops": 600, "bytes": 100, "working_set": 1500, "rows": list(rows),
        "limits": limits, "controls": [*controls],
        "rounds": rounds,
    }  # fmt: skip


def stood(*rows: dict[str, Any], controls: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
    found = stand(record(*rows, controls=controls), CACHES)
    return [each.get("summary", {}) for each in found["rows"]]


SLOW = row("slow", [4.0, 8.0, 4.0, 4.0, 4.0, 4.0])
FAST = row("fast", [2.0, 4.0, 2.0, 2.0, 2.0, 2.0])
TWIN = row("fast", [2.0, 4.2, 2.1, 1.9, 2.0, 2.0])


def test_rates_are_those_of_the_median_round() -> None:
    (found,) = stood(FAST)
    assert found["median"] == 2.0
    assert (found["min"], found["max"]) == (2.0, 4.0)
    assert found["flops_per_second"] == 300
    assert found["bytes_per_second"] == 50


def test_a_gain_is_over_the_rung_above_within_the_round() -> None:
    first, second = stood(SLOW, FAST)
    assert "gain" not in first
    assert second["gain"]["median"] == 2.0
    assert (second["gain"]["low"], second["gain"]["high"]) == (2.0, 2.0)


def test_a_rung_on_several_threads_is_compared_with_the_serial_one() -> None:
    two = row("parallel", [1.0] * 6, threads=2)
    four = row("parallel", [0.5] * 6, threads=4)
    found = stood(row("serial", [2.0] * 6), two, four)
    assert [each["gain"]["median"] for each in found[1:]] == [2.0, 4.0]


def test_a_rung_that_was_not_measured_is_passed_over() -> None:
    wrong = row("wrong", [], wrong="probs[0] is 1")
    found = stood(SLOW, wrong, FAST)
    assert found[1] == {}
    assert found[2]["gain"]["median"] == 2.0


def test_only_rounds_that_both_took_part_in_are_compared() -> None:
    slow = row("slow", [4.0, 6.0, None, None, None, None])
    found = stood(slow, row("fast", [2.0, 2.0, 9.0, 9.0, 9.0, 9.0]))
    assert (found[1]["gain"]["low"], found[1]["gain"]["high"]) == (2.0, 3.0)


def test_a_gain_beyond_the_control_is_called_faster() -> None:
    assert stood(SLOW, FAST, controls=[TWIN])[1]["verdict"] == FASTER


def test_a_loss_beyond_the_control_is_called_slower() -> None:
    assert (
        stood(FAST, SLOW, controls=[row("fast", [2.0, 4.2, 2.1, 1.9, 2.0, 2.0])])[1]["verdict"]
        == SLOWER
    )


def test_within_the_control_nothing_is_called_faster() -> None:
    better = row("better", [1.9, 3.8, 1.9, 1.9, 1.9, 1.9])
    control = row("better", [1.7, 3.4, 1.9, 2.1, 1.7, 2.1])
    found = stood(FAST, better, controls=[control])
    assert found[1]["gain"]["low"] > 1
    assert found[1]["verdict"] == SAME


def test_few_rounds_resolve_nothing() -> None:
    slow, fast = row("slow", [4.0] * 4), row("fast", [2.0] * 4)
    assert stood(slow, fast, controls=[fast])[1]["verdict"] == SAME


def test_an_interval_with_1_in_it_says_nothing() -> None:
    mixed = row("mixed", [1.0, 4.1, 2.1, 1.0, 1.0, 2.1])
    assert stood(FAST, mixed, controls=[row("fast", [2.0] * 6)])[1]["verdict"] == SAME


def test_without_a_control_nothing_is_called_faster() -> None:
    assert stood(SLOW, FAST)[1]["verdict"] == SAME


def test_the_control_is_held_against_the_row_it_repeats() -> None:
    twin = row("fast", [1.0, 2.0, 1.0, 1.0, 1.0, 1.0])
    found = stand(record(SLOW, FAST, controls=[twin]), CACHES)
    assert found["controls"][0]["ratio"]["median"] == 2.0


def test_a_control_that_was_slower_than_itself_also_says_how_much_a_gain_may_be_chance() -> None:
    better = row("better", [1.9, 3.8, 1.9, 1.9, 1.9, 1.9])
    control = row("better", [2.4, 4.8, 2.4, 2.4, 2.4, 2.4])
    assert stood(FAST, better, controls=[control])[1]["verdict"] == SAME


def test_a_control_counts_for_as_many_threads_as_it_has() -> None:
    two = row("parallel", [1.0] * 6, threads=2)
    noisy = row("parallel", [0.2, 5.0, 1.0, 1.0, 5.0, 0.2], threads=2)
    found = stood(SLOW, FAST, two, controls=[TWIN, noisy])
    assert [each["verdict"] for each in found[1:]] == [FASTER, SAME]


def test_a_reference_is_held_against_our_last_rung_on_as_many_threads() -> None:
    parallel = row("parallel", [1.0] * 6, threads=2)
    found = stood(
        row("serial", [2.0] * 6), parallel,
        row("BLAS", [3.0] * 6, reference=True), row("BLAS", [3.0] * 6, reference=True, threads=2),
    )  # fmt: skip
    assert [each["by_ours"]["median"] for each in found[2:]] == [1.5, 3.0]


def test_a_reference_is_no_step_of_the_ladder() -> None:
    found = stood(SLOW, row("BLAS", [1.0] * 6, reference=True), FAST)
    assert found[2]["gain"]["median"] == 2.0


def test_the_share_of_the_limit_is_taken_of_the_most_that_the_machine_did() -> None:
    """Memory takes 1 s at best, computing 0.6."""
    found = record(row("kernel", [2.0, 4.0, 2.0]))
    found["limits"] = [limit("peak", 1000, [2.0, 1.0, 2.0]), limit("triad", 100, [2.0, 2.0, 1.0])]
    (summary,) = [each["summary"] for each in stand(found, CACHES)["rows"]]
    assert summary["limit"] == "memory"
    assert [summary["share"][name] for name in ("low", "median", "high")] == [0.25, 0.5, 0.5]


def test_the_bandwidth_is_that_of_the_faster_way_to_move_bytes() -> None:
    found = record(row("kernel", [2.0] * 3))
    found["limits"].append(limit("update", 125, [1.0] * 3))
    (summary,) = [each["summary"] for each in stand(found, CACHES)["rows"]]
    assert summary["share"]["median"] == 0.4


def test_where_computing_takes_longer_that_is_the_limit() -> None:
    found = record(row("kernel", [2.0] * 3))
    found["flops"] = 1500
    (summary,) = [each["summary"] for each in stand(found, CACHES)["rows"]]
    assert summary["limit"] == "compute"
    assert summary["share"]["median"] == 0.75


def test_a_limit_is_that_of_as_many_threads() -> None:
    found = record(row("kernel", [2.0] * 3, threads=2))
    found["limits"] += [limit("peak", 4000, [1.0] * 3, 2), limit("triad", 200, [1.0] * 3, 2)]
    (summary,) = [each["summary"] for each in stand(found, CACHES)["rows"]]
    assert summary["share"]["median"] == 0.25


def test_the_rate_of_a_limit_is_that_of_its_best_samples() -> None:
    found = stand(record(FAST), CACHES)
    assert found["limits"][0]["rate"] == 1000


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
    """Each thread has a first cache of its own; the last is for all."""
    assert cache_of(size, threads, CACHES) == cache


def test_threads_share_the_working_set() -> None:
    found = record(FAST)
    found["limits"] += [limit("peak", 4000, [1.0] * 6, 2), limit("triad", 200, [1.0] * 6, 2)]
    assert stand(found, CACHES)["cache"] == {"1": "L2", "2": "L1"}


def test_without_a_round_there_is_nothing_to_say() -> None:
    found = record(row("kernel", []))
    assert "summary" not in stand(found, CACHES)["rows"][0]
