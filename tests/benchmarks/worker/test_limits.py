"""The loops that measure limits count what they do."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from benchmarks.worker import limits

POOL = ThreadPoolExecutor(3)
L1 = 1 << 14


def test_the_loops_compute_what_they_are_counted_for() -> None:
    rng = np.random.default_rng(0)
    a, b, c = rng.standard_normal((3, 4 * limits.LANES), dtype=np.float32)
    limits.triad(a, b, c, 2)
    np.testing.assert_array_equal(a, b + c / 2)
    expected = (a + b / 2) + b / 2
    limits.update(a, b, 2)
    np.testing.assert_array_equal(a, expected)
    state = rng.random((limits.ACCUMULATORS, limits.LANES), np.float32)
    expected = state.astype(np.float64)
    for _ in range(3):
        expected = expected * float(limits.FACTOR) + float(limits.TERM)
    limits.multiply_add(state, 3)
    np.testing.assert_allclose(state, expected, rtol=1e-6)
    values = rng.standard_normal(24 * limits.LANES, dtype=np.float32)
    total = np.zeros(limits.LANES, np.float32)
    limits.read(values, total, 2)
    np.testing.assert_allclose(total, 2 * values.reshape(-1, limits.LANES).sum(axis=0), rtol=1e-4)


@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize("name", limits.BANDWIDTHS)
@pytest.mark.parametrize(("threads", "size"), [(1, 13_000), (3, 200_000), (3, 40_000)])
def test_moves_are_counted_with_what_is_fetched_before_it_is_written(
    name: str, threads: int, size: int, cold: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.machine.caches", lambda: {"L1": L1})
    monkeypatch.setattr(limits, "repetitions", Mock(return_value=7))
    moved, held, passes = list[int](), list[int](), set[int]()

    def count(*operands: Any) -> None:
        *arrays, times = operands
        passes.add(int(times))
        if name == "read":  # The last one is the sum.
            del arrays[-1]
        read = {"triad": arrays[1:], "update": arrays, "read": arrays}[name]
        written = arrays[0].nbytes if name != "read" else 0
        moved.append((sum(each.nbytes for each in read) + written) * int(times))
        held.append(sum(each.nbytes for each in arrays))

    _, *counts = limits.BANDWIDTHS[name]
    monkeypatch.setitem(limits.BANDWIDTHS, name, (count, *counts))
    step, amount = limits.make(name, threads, size, POOL, cold)
    step()
    fetched = 4 / 3 if name == "triad" and (cold or size // threads > L1) else 1
    assert amount == pytest.approx(fetched * sum(moved))
    assert len(held) == threads
    assert size - threads * 4 * 3 * 8 * limits.LANES < sum(held) <= size
    assert passes == {1 if cold else 7}


def test_the_peak_counts_the_flops_of_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "multiply_add", loop := Mock())
    monkeypatch.setattr(limits, "repetitions", Mock(return_value=1000))
    for cold in (False, True):
        loop.reset_mock()
        step, amount = limits.make("peak", 3, 0, POOL, cold)
        step()
        rounds = sum(call.args[1] for call in loop.call_args_list)
        assert (rounds, amount) == (3000, 3000 * 2 * limits.LANES * limits.ACCUMULATORS)


def test_a_step_repeats_its_loop_until_it_takes_long_enough_whatever_interrupts_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = 0

    def seconds_of(_: Any, times: int) -> float:
        nonlocal calls
        calls += 1
        return 1e-6 * times + (4e-3 if calls % 3 == 1 else 0)

    monkeypatch.setattr(limits, "seconds_of", seconds_of)
    assert limits.repetitions(Mock(), 1e-3) == 1000
    assert calls <= 30


def test_a_limit_is_opened_and_timed_and_threads_of_blas_sleep_after_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.worker.clock.wait_for_sleep", wait := Mock())
    found = limits.Limits()
    with found.limit:
        for name in ("peak", *limits.BANDWIDTHS, "BLAS"):
            assert wait.call_count == 0
            assert found.open(name, 2, 1 << 16)["amount"] > 0
            assert min(found.turn()["seconds"]) > 0
    assert wait.call_count == 1


def test_with_cold_caches_a_limit_passes_over_its_arrays_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.machine.caches", lambda: {"L1": L1, "L2": 4 * L1})
    found = limits.Limits("cold")
    with found.limit:
        assert found.open("read", 2, 2 * L1) == {"amount": 2 * L1}
        assert found.turn()["seconds"]
    assert found.timed.evict is not None
