"""The limits count what they do."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from benchmarks import limits, peak

POOL = ThreadPoolExecutor(3)
L1 = 1 << 14


def test_the_triad_adds_half_of_one_array_to_another() -> None:
    rng = np.random.default_rng(0)
    a, b, c = rng.standard_normal((3, 4 * limits.LANES), dtype=np.float32)
    limits.triad(a, b, c, 2)
    np.testing.assert_array_equal(a, b + c / 2)


def test_the_update_adds_half_of_one_array_to_the_other() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 4 * limits.LANES), dtype=np.float32)
    expected = (a + b / 2) + b / 2
    limits.update(a, b, 2)
    np.testing.assert_array_equal(a, expected)


def test_an_update_reads_two_arrays_and_writes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []

    def count(a: np.ndarray, b: np.ndarray, times: int) -> None:
        calls.append((2 * a.nbytes + b.nbytes, times))

    monkeypatch.setattr(limits, "update", count)
    step, amount = limits.make("update", 3, 200_000, POOL)
    step()
    assert len(calls) == 3
    assert amount == sum(moved * times for moved, times in calls)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", [5000, 200_000])
def test_a_triad_moves_its_arrays_as_often_as_it_goes_over_them_and_fetches_what_it_writes(
    threads: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.machine.caches", lambda: {"L1": L1})
    calls: list[tuple[int, int]] = []

    def count(a: np.ndarray, b: np.ndarray, c: np.ndarray, times: int) -> None:
        calls.append((a.nbytes + b.nbytes + c.nbytes, times))

    monkeypatch.setattr(limits, "triad", count)
    step, amount = limits.make("triad", threads, size, POOL)
    step()
    assert len(calls) == threads
    fetched = 4 / 3 if size // threads > L1 else 1
    assert amount == pytest.approx(fetched * sum(moved * times for moved, times in calls))
    whole = sum(moved for moved, _ in calls)
    assert size - threads * 12 * limits.LANES < whole <= size


def test_the_peak_counts_the_flops_of_every_thread() -> None:
    (_, one), (_, three) = (limits.make("peak", threads, 0, POOL) for threads in (1, 3))
    assert three == 3 * one
    assert one == pytest.approx(limits.FLOPS, rel=1e-3)


def test_every_thread_goes_around_the_loop_of_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[int] = []
    monkeypatch.setattr(peak, "multiply_add", rounds.append)
    step, amount = limits.make("peak", 3, 0, POOL)
    step()
    assert len(rounds) == 3
    assert amount == sum(rounds) * 2 * peak.LANES * peak.ACCUMULATORS
