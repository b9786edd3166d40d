"""The table of the machine's limits."""

from typing import Any
from unittest.mock import Mock

import pytest

from benchmarks.harness import limits
from benchmarks.harness.analysis import estimate

CACHES = {"L1": 1000, "L2": 8000, "L3": 64_000}


def test_the_arrays_of_a_triad_fit_the_cache_that_it_is_named_after() -> None:
    def sizes(threads: int, cold: bool = False, **caches: int) -> list[tuple[str | None, int]]:
        found = limits.limits_of(caches or CACHES, threads, cold)
        return [(where, size) for name, where, size in found if name == "triad"]

    private = [("L1", 500), ("L2", 4000)]
    assert sizes(1) == [*private, ("L3", 32_000), ("L3", 16_000), ("memory", 256_000)]
    # Private caches of two threads hold twice as much; of eight, as much as the last cache.
    assert sizes(2)[:2] == [("L1", 1000), ("L2", 8000)]
    assert [size for where, size in sizes(2) if where == "L3"] == [32_000]
    assert [size for where, size in sizes(8) if where == "L3"] == []
    assert sizes(1, True) == [("memory", 256_000)]
    assert sizes(1, L2=8000) == [("L2", 4000), ("L2", 2000), ("L2", 1000), ("memory", 32_000)]


def table(*triads: tuple[str, float]) -> list[dict[str, Any]]:
    return [
        {"name": "triad", "where": where, "threads": 1, "rate": estimate([rate] * 6)}
        for where, rate in triads
    ]


@pytest.mark.parametrize(
    ("triads", "expected"),
    [
        ([("L2", 9), ("L3", 3), ("L3", 5), ("L3", 4), ("memory", 1)], [9, 5, 1]),
        ([("L2", 9), ("L3", 1.1), ("L3", 1.2), ("memory", 1)], [9, 1]),
        ([("L2", 9), ("L3", 1.2), ("memory", 1)], [9, 1]),
    ],
)
def test_the_fastest_size_of_a_cache_counts_if_it_is_faster_than_memory(
    triads: list[tuple[str, float]], expected: list[float]
) -> None:
    peak = {"name": "peak", "where": None, "threads": 1, "rate": estimate([1.0])}
    found = list(limits.distinct([peak, *table(*triads)]))
    assert [each["rate"].median for each in found[1:]] == expected


def test_the_rates_are_medians_over_all_rounds_so_far_that_were_not_disturbed() -> None:
    turns = iter([(1.0, 0.0), (2.0, None), (4.0, 0.0), (4.0, 0.0), (4.0, 0.0), (80.0, 0.9)])
    process = Mock()
    process.fork.return_value.ask = answer = Mock()

    def answered(do: str, **_: Any) -> dict[str, Any]:
        if do == "open":
            return {"amount": 8}
        seconds, waited = next(turns)
        return {"seconds": [seconds] * 3, "waited": waited}

    answer.side_effect = answered
    found = limits.MachineLimits(process, {"L1": 1000}, [1], cold=True)
    found.comparison.limits = found.comparison.limits[:1]
    (limit,) = found.measure(3, Mock())
    assert limit["rate"].median == 4.0
    (limit,) = found.measure(1, Mock())
    assert (limit["rate"].median, limit["rate"].low, limit["rate"].high) == (3.0, 2.0, 8.0)
    (limit,) = found.measure(2, Mock())  # In the last turn it waited for a CPU.
    assert (limit["rate"].median, limit["rate"].low) == (2.0, 2.0)
