"""Times, gains and the fraction of the limit."""

from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.harness.analysis import analyse, cache_of, estimate, ratio, refuse_impossible

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
    record: Row = {"flops": 600, "bytes": 100, "working_set": 2000}
    record["rows"] = [{**each} for each in rows]
    return analyse({**record, "limits": [*limits], "controls": [*controls]}, MACHINE)


SLOW = row("slow", [4.0, 8.0, 4.0, 4.0, 4.0, 4.0])
FAST = row("fast", [2.0, 4.0, 2.0, 2.0, 2.0, 2.0])
TRAINED = {**FAST, "trained": True}


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


def test_a_kernel_of_the_user_is_compared_with_all_that_it_may_replace() -> None:
    mine = {"by": "mine", "reference": True}
    found = analysed(
        SLOW, TRAINED, row("mine", [1.0, 2.0, 1.0, 1.0, 1.0, 1.0], **mine),
        row("other", [4.0] * 6, **mine), row("mine", [1.0] * 6, threads=2, **mine),
        row("BLAS", [3.0] * 6, reference=True), row("BLAS", [9.0] * 6, reference=True, threads=4),
    )  # fmt: skip
    first, second, shared = found["rows"][2:5]
    assert first["gain"].median == 2.0
    assert "by_ours" not in first
    ratios = [(each["other"][0], each["ratio"].median) for each in first["against"]]
    assert ratios == [("fast", 2.0), ("BLAS", 3.0)]
    ratios = [(each["other"][0], each["ratio"].median) for each in second["against"]]
    assert ratios == [("fast", 0.5), ("mine", 0.25), ("BLAS", 0.75)]
    assert "against" not in shared


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
    assert record["cache"] == {"1": "L2"}  # The triad counts, as in the machine's limits.
    for each, rate in ((300, "L1"), (200, "L1"), (40, "memory"), (1, "memory")):
        assert cache_of(each, 1, MACHINE) == rate


def test_a_row_that_is_beyond_a_limit_with_its_whole_interval_is_wrong() -> None:
    # 600 FLOPs take 0.6 s on one thread. 100 bytes take 0.5 s on two, 0.4 s in the best turn.
    ones, quick = [1.0] * 5, [0.001] * 6
    limits = [
        limit("peak", 1000, ones), limit("triad", 10, ones), limit("read", 1000, ones),
        limit("peak", 10, ones, 2), limit("triad", 250, [1.25, 1.0, 1.25, 1.25, 1.25], 2),
        limit("peak", 1000, ones, 3), limit("triad", 1000, ones[1:], 3),
    ]  # fmt: skip
    rows = [
        row("too fast", [0.49] * 6), row("too fast", [0.33] * 6, threads=2),
        # Once slow enough, with too few rounds, disturbed, and without all limits.
        row("right", [0.25, 0.25, 0.51, 0.25, 0.25]), row("right", quick[2:]),
        row("right", quick, waits=[0.5] * 2), row("right", quick, threads=3),
    ]  # fmt: skip
    refuse_impossible({"flops": 600, "bytes": 100, "rows": rows, "limits": limits})
    told = [each.get("wrong", "right") for each in rows]
    assert told[0] == "runs at 122% of the limit: it does not do all the work"
    assert told[1] == "runs at 121% of the limit: it does not do all the work"
    assert told[2:] == ["right"] * 4


def of_turns(*turns: list[float] | None, waited: Sequence[float | None] = ()) -> Row:
    return {"turns": [*turns], "waits": [*waited]}


def test_a_ratio_is_the_median_over_the_rounds_in_which_both_took_a_turn() -> None:
    # The machine slows down tenfold: within each round theirs takes twice as long.
    theirs = of_turns([2.0, 9.0, 1.0], [6.0], [20.0], None, [1.0])
    found = ratio(theirs, of_turns([1.0], [3.0], [10.0], [1.0], None))
    assert found is not None
    assert found[:3] == (2.0, 2.0, 2.0)
    assert ratio(of_turns([1.0], None), of_turns(None, [1.0])) is None
    assert ratio(of_turns([1.0], None), of_turns()) is None


def test_turns_that_waited_for_a_cpu_are_left_out_if_enough_remain() -> None:
    slow, ours = [[9.0], *[[2.0]] * 5], of_turns(*[[1.0]] * 6)
    for waits, high in (
        # Unknown, less than is counted, one turn, and two of six.
        ([], 9.0), ([None] * 6, 9.0), ([0.04, *[0.0] * 5], 9.0), ([0.06, *[0.0] * 5], 2.0),
        ([0.06, 0.06, *[0.0] * 4], 9.0),
    ):  # fmt: skip
        found = ratio(of_turns(*slow, waited=waits), ours)
        assert found is not None
        assert (found.median, found.high) == (2.0, high)


def test_times_of_disturbed_turns_do_not_count_in_the_times_and_the_limits() -> None:
    more = {"waits": [0.5, *[None] * 5]}
    kernel = row("kernel", [9.0, *[3.0] * 5], **more)
    peak = limit("peak", 400, [50.0, 1.0, 1.0, 1.0, 2.0, 2.0]) | more
    found = analysed(kernel, limits=[peak, limit("triad", 1000, [1.0] * 6)])
    assert found["rows"][0]["seconds"][:3] == (3.0, 3.0, 3.0)
    assert found["limits"][0]["rate"] == 400
    assert found["rows"][0]["fraction"][:3] == (0.5, 0.5, 1.0)


def test_steady_times_are_without_what_slowed_down_the_others_on_as_many_threads() -> None:
    pace = [1.0, 1.0, 3.0, 3.0, 1.0]
    rows = [row(name, [time * each for each in pace]) for name, time in (("a", 1.0), ("b", 2.0))]
    odd = row("odd", [4.0, 4.0, 12.0, 24.0, 4.0])
    alone = row("alone", pace, threads=2)
    limits = [limit("peak", 1, pace), limit("triad", 1, pace)]
    limits += [limit(name, 1, [1.0] * 5, 2) for name in ("peak", "triad")]
    found = analysed(*rows, odd, alone, limits=limits)["rows"]
    assert [each["steady"][:3] for each in found] == [
        (1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (4.0, 4.0, 8.0), (1.0, 1.0, 3.0)
    ]  # fmt: skip
    # Two others do not tell the pace.
    assert analysed(rows[0], limits=limits)["rows"][0]["steady"][:3] == (1.0, 1.0, 3.0)


def test_rows_that_were_wrong_or_failed_in_the_end_are_not_compared() -> None:
    blas = row("BLAS", [3.0] * 6, reference=True)
    for fault in ({"wrong": "y[0] is 1"}, {"failed": "killed by signal 9"}):
        _, faulty, after, theirs = analysed(SLOW, {**TRAINED, **fault}, FAST, blas)["rows"]
        assert "gain" not in faulty
        assert after["gain"].median == 2.0  # over the slow one
        assert "by_ours" not in theirs


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
