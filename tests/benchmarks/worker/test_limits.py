"""The loops that measure limits count what they do."""

from concurrent.futures import ThreadPoolExecutor
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
    limits.multiply_add(3, state)
    np.testing.assert_allclose(state, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "threads", "size"),
    [("triad", 1, 5000), ("triad", 3, 200_000), ("update", 3, 5000), ("update", 1, 200_000)],
)
def test_moves_are_counted_with_what_is_fetched_before_it_is_written(
    name: str, threads: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.machine.caches", lambda: {"L1": L1})
    moved, held = list[int](), list[int]()

    def count(a: np.ndarray, *others: np.ndarray) -> None:
        *arrays, times = others
        read = arrays if name == "triad" else [a, *arrays]
        moved.append((sum(each.nbytes for each in read) + a.nbytes) * int(times))
        held.append(a.nbytes + sum(each.nbytes for each in arrays))

    monkeypatch.setattr(limits, name, count)
    step, amount = limits.make(name, threads, size, POOL)
    step()
    fetched = 4 / 3 if name == "triad" and size // threads > L1 else 1
    assert amount == pytest.approx(fetched * sum(moved))
    assert len(held) == threads
    assert size - threads * 12 * limits.LANES < sum(held) <= size


def test_the_peak_counts_the_flops_of_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "multiply_add", loop := Mock())
    step, amount = limits.make("peak", 3, 0, POOL)
    step()
    rounds = sum(call.args[0] for call in loop.call_args_list)
    assert amount == rounds * 2 * limits.LANES * limits.ACCUMULATORS
    assert amount == pytest.approx(3 * limits.FLOPS, rel=1e-3)
