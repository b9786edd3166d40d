"""Times, gains, verdicts and the fraction of the limit."""

from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.harness.analysis import FASTER, SAME, SLOWER, analyse, cache_of, estimate, ratio

# The bandwidth of each cache, by threads.
CACHES = {1: {"L1": 400, "L2": 90, "memory": 20}, 2: {"L1": 250, "memory": 20}}
MACHINE: list[dict[str, Any]] = [
    {"name": "triad", "where": where, "threads": threads, "rate": (rate, rate, rate, 1.0)}
    for threads, rates in CACHES.items()
    for where, rate in rates.items()
]
Row = dict[str, Any]


def row(name: str, seconds: list[Any], **more: Any) -> Row:
    """Return a serial rung of ours with the seconds of each round."""
    about = {"rung": name, "by": "ours", "threads": 1, "reference": False, "trained": False}
    return {**about, "turns": [[each] * 3 for each in seconds], **more}


def limit(name: str, amount: float, seconds: list[float], threads: int = 1) -> Row:
    turns = [[each, each / 2, 3 * each] for each in seconds]
    return {"name": name, "threads": threads, "amount": amount, "turns": turns}


def analysed(*rows: Row, controls: Sequence[Row] = (), limits: Sequence[Row] = ()) -> Row:
    """Return a case of 600 FLOPs and 100 bytes; the machine does 1000 FLOP/s and 100 B/s."""
    ones = [1.0] * max(len(each["turns"]) for each in rows)
    limits = limits or [limit("peak", 1000, ones), limit("triad", 100, ones)]
    record: Row = {"flops": 600, "bytes": 100, "working_set": 2000, "rows": [*rows]}
    return analyse({**record, "limits": [*limits], "controls": [*controls]}, MACHINE)


SLOW = row("slow", [4.0, 8.0, 4.0, 4.0, 4.0, 4.0])
FAST = row("fast", [2.0, 4.0, 2.0, 2.0, 2.0, 2.0])
TRAINED = {**FAST, "trained": True}
TWIN = row("fast", [2.0, 4.2, 2.1, 1.9, 2.0, 2.0])
BETTER = row("better", [1.9, 3.8, 1.9, 1.9, 1.9, 1.9])


def test_a_gain_is_over_the_serial_rung_above_within_the_round() -> None:
    found = analysed(
        row("BLAS", [3.0] * 6, reference=True), SLOW, row("wrong", [], wrong="y[0] is 1"), TRAINED,
        row("two", [1.0, 2.0, 1.0, 1.0, 1.0, 1.0], threads=2, trained=True),
        row("four", [0.5, 1.0, 0.5, 0.5, 0.5, 0.5], threads=4, trained=True),
        row("BLAS", [3.0] * 6, reference=True, threads=2),
    )  # fmt: skip
    blas, slow, wrong, fast, two, four, shared = found["rows"]
    assert (fast["seconds"].median, fast["range"]) == (2.0, (2.0, 4.0))
    assert "gain" not in slow
    assert "seconds" not in wrong
    assert fast["gain"][:3] == (2.0, 2.0, 2.0)
    assert [each["gain"].median for each in (two, four)] == [2.0, 4.0]
    # A reference is compared with the kernel of training on as many threads.
    assert [each["by_ours"].median for each in (blas, shared)] == [1.5, 3.0]


def test_a_rung_after_that_of_training_is_not_what_references_are_compared_with() -> None:
    new, blas = row("new", [6.0] * 6), row("BLAS", [3.0] * 6, reference=True)
    assert "by_ours" not in analysed(new, blas)["rows"][1]
    assert analysed(TRAINED, new, blas)["rows"][2]["by_ours"].median == 1.5


@pytest.mark.parametrize(
    ("above", "below", "control", "expected"),
    [
        (SLOW, FAST, TWIN, FASTER),
        (FAST, SLOW, row("slow", [4.0, 8.4, 4.2, 3.8, 4.0, 4.0]), SLOWER),
        # Within what the control differs from itself by, in either direction.
        (FAST, BETTER, row("better", [1.7, 3.4, 1.9, 2.1, 1.7, 2.1]), SAME),
        (FAST, BETTER, row("better", [2.4, 4.8, 2.4, 2.4, 2.4, 2.4]), SAME),
        # Too few rounds, an interval with 1 in it, and no control.
        (row("slow", [4.0] * 4), row("fast", [2.0] * 4), row("fast", [2.0] * 4), SAME),
        (FAST, row("mixed", [1.0, 4.1, 2.1, 1.0, 1.0, 2.1]), row("mixed", [2.0] * 6), SAME),
        (SLOW, FAST, None, SAME),
    ],
)
def test_a_gain_is_resolved_only_beyond_its_control(
    above: Row, below: Row, control: Row | None, expected: str
) -> None:
    controls = [] if control is None else [control]
    assert analysed(above, below, controls=controls)["rows"][1]["verdict"] == expected


def test_a_control_counts_for_as_many_threads_as_it_has() -> None:
    two = row("parallel", [1.0] * 6, threads=2)
    noisy = row("parallel", [0.2, 5.0, 1.0, 1.0, 5.0, 0.2], threads=2)
    found = analysed(SLOW, FAST, two, controls=[TWIN, noisy])
    assert [each["verdict"] for each in found["rows"][1:]] == [FASTER, SAME]


def test_the_limit_is_the_time_that_takes_longer_by_the_same_statistic() -> None:
    limits = [
        limit("peak", 1000, [1.0, 2.0, 3.0]), limit("triad", 100, [1.0, 2.0, 1.0]),
        limit("peak", 200, [1.0] * 3, 2), limit("triad", 200, [1.0] * 3, 2),
    ]  # fmt: skip
    found = analysed(
        row("kernel", [4.0, 5.0, 3.0]), row("both", [2.0] * 3, threads=2), limits=limits
    )
    one, two = found["rows"]
    assert (limits[0]["rate"], limits[1]["rate"]) == (1000 / 2, 100 / 1)
    # 600 FLOPs take 0.6, 1.2 and 1.8 s, within the rounds.
    assert (one["bound"], one["fraction"][:3]) == ("compute", pytest.approx((0.24, 0.15, 0.6)))
    assert (two["bound"], two["fraction"].median) == ("compute", 1.5)
    assert found["cache"] == {"1": "L2", "2": "L1"}


def test_a_bandwidth_is_that_of_the_fastest_way_to_move_bytes() -> None:
    limits = [limit("peak", 1000, [1.0] * 3), limit("triad", 100, [1.0] * 3)]
    limits += [limit("update", 40, [1.0, 0.25, 0.25]), limit("read", 120, [1.0] * 3)]
    record = analysed(row("kernel", [2.0, 1.0, 1.0]), limits=limits)
    # Moving 100 bytes takes longer than 600 FLOPs: 2.5, 0.625 and 0.625 s.
    (one,) = record["rows"]
    assert (one["bound"], one["fraction"][:3]) == ("memory", (0.625, 0.625, 1.25))
    assert record["cache"] == {"1": "L2"}  # What counts is the triad, as in the machine's limits.
    for each, rate in ((300, "L1"), (200, "L1"), (40, "memory"), (1, "memory")):
        assert cache_of(each, 1, MACHINE) == rate


def test_a_ratio_is_the_median_over_the_rounds_in_which_both_took_a_turn() -> None:
    # The machine slows down tenfold: within each round theirs takes twice as long.
    theirs, ours = (
        [[2.0, 9.0, 1.0], [6.0], [20.0], None, [1.0]],
        [[1.0], [3.0], [10.0], [1.0], None],
    )
    found = ratio(theirs, ours)
    assert found is not None
    assert found[:3] == (2.0, 2.0, 2.0)
    assert ratio([[1.0], None], [None, [1.0]]) is None


@pytest.mark.parametrize(
    ("count", "low", "high", "coverage"),
    # As in tables of the sign test; few values give their range and what it covers.
    [(1, 0, 0, 0.0), (3, 0, 2, 0.75), (5, 0, 4, 0.9375), (6, 0, 5, 0.96875), (8, 0, 7, None),
     (9, 1, 7, None), (15, 3, 11, None), (20, 5, 14, None)],
)  # fmt: skip
def test_the_interval_is_that_of_the_sign_test(
    count: int, low: int, high: int, coverage: float | None
) -> None:
    found = estimate([float(value) for value in reversed(range(count))])
    assert (found.low, found.high) == (low, high)
    assert found.coverage == coverage if coverage is not None else found.coverage >= 0.95
