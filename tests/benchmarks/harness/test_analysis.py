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


def test_a_gain_is_over_the_measured_rung_above_within_the_round() -> None:
    reference, wrong = row("BLAS", [1.0] * 6, reference=True), row("wrong", [], wrong="y[0] is 1")
    first, _, not_measured, last = analysed(SLOW, reference, wrong, FAST)
    assert "gain" not in first
    assert "seconds" not in not_measured
    assert last["gain"][:3] == (2.0, 2.0, 2.0)


def test_a_rung_on_several_threads_is_compared_with_the_serial_one() -> None:
    two = row("parallel", [1.0] * 6, threads=2)
    four = row("parallel", [0.5] * 6, threads=4)
    found = analysed(row("serial", [2.0] * 6), two, four)
    assert [each["gain"].median for each in found[1:]] == [2.0, 4.0]


BETTER = row("better", [1.9, 3.8, 1.9, 1.9, 1.9, 1.9])


@pytest.mark.parametrize(
    ("above", "below", "control", "expected"),
    [
        (SLOW, FAST, TWIN, FASTER),
        (FAST, SLOW, row("slow", [4.0, 8.4, 4.2, 3.8, 4.0, 4.0]), SLOWER),
        # Within what the control differs from itself by, in either direction.
        (FAST, BETTER, row("better", [1.7, 3.4, 1.9, 2.1, 1.7, 2.1]), SAME),
        (FAST, BETTER, row("better", [2.4, 4.8, 2.4, 2.4, 2.4, 2.4]), SAME),
        # Too few rounds, and an interval with 1 in it.
        (row("slow", [4.0] * 4), row("fast", [2.0] * 4), row("fast", [2.0] * 4), SAME),
        (FAST, row("mixed", [1.0, 4.1, 2.1, 1.0, 1.0, 2.1]), row("mixed", [2.0] * 6), SAME),
        (SLOW, FAST, None, SAME),
    ],
)
def test_a_gain_is_resolved_only_beyond_its_control(
    above: dict[str, Any], below: dict[str, Any], control: dict[str, Any] | None, expected: str
) -> None:
    controls = [] if control is None else [control]
    assert analysed(above, below, controls=controls)[1]["verdict"] == expected


def test_the_control_is_held_against_the_row_it_repeats() -> None:
    twin = row("fast", [1.0, 2.0, 1.0, 1.0, 1.0, 1.0])
    found = analyse(record(SLOW, FAST, controls=[twin]), CACHES)
    assert found["controls"][0]["ratio"].median == 2.0


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


def test_the_share_of_the_limit_is_taken_of_the_most_that_the_machine_did() -> None:
    """Moving the bytes takes 1 s at best, computing 0.6 s."""
    found = record(row("kernel", [2.0, 4.0, 2.0]))
    found["limits"] = [limit("peak", 1000, [2.0, 1.0, 2.0]), limit("triad", 100, [2.0, 2.0, 1.0])]
    (row_found,) = analyse(found, CACHES)["rows"]
    assert row_found["bound"] == "memory"
    fraction = row_found["fraction"]
    assert (fraction.low, fraction.median, fraction.high) == (0.25, 0.5, 0.5)


def test_the_limit_is_that_of_as_many_threads_and_of_what_takes_longer() -> None:
    found = record(row("kernel", [2.0] * 3), row("both", [2.0] * 3, threads=2))
    found["limits"].append(limit("update", 125, [1.0] * 3))  # The faster way to move bytes.
    found["limits"] += [limit("peak", 200, [1.0] * 3, 2), limit("triad", 200, [1.0] * 3, 2)]
    one, two = analyse(found, CACHES)["rows"]
    assert (one["fraction"].median, one["bound"]) == (0.4, "memory")
    assert (two["fraction"].median, two["bound"]) == (1.5, "compute")
    assert found["cache"] == {"1": "L2", "2": "L1"}


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
        (1001, 1, "L2"),
        (10_000, 1, "L2"),
        (10_001, 1, "memory"),
        (2000, 2, "L1"),
        (2001, 2, "L2"),
    ],
)
def test_a_working_set_lies_in_the_smallest_caches_that_hold_it(
    size: int, threads: int, cache: str
) -> None:
    assert cache_of(size, threads, CACHES) == cache
