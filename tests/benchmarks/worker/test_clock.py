"""The clock warms a step up until its samples settle, and then takes the samples of the turn."""

import itertools
import statistics
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from benchmarks.worker import clock
from benchmarks.worker.clock import Timed

SETTLING = (6.23e-3, 5.45e-3, 4.49e-3, 3.93e-3, 3.77e-3, 3.74e-3)


class FakeClock:
    """A time that passes only in steps. The last of their lengths repeats."""

    def __init__(self, seconds: Iterable[float]) -> None:
        *first, last = seconds
        self.now, self.steps = 0.0, 0
        self.lengths = itertools.chain(first, itertools.repeat(last))

    def step(self, *_: Any) -> None:
        self.steps += 1
        self.now += next(self.lengths)


def turn(
    monkeypatch: pytest.MonkeyPatch, *seconds: float, **options: Any
) -> tuple[list[float], int]:
    """Return the samples of a turn and how many steps there were before them."""
    fake = FakeClock(seconds)
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: fake.now))
    timed = Timed(fake.step, **options)
    found = timed.turn()["seconds"]
    return found, fake.steps - len(found) * timed.repeat


def test_a_step_that_settles_slowly_is_reported_as_it_is_when_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    samples, untimed = turn(monkeypatch, *SETTLING)
    assert samples == pytest.approx([3.74e-3] * clock.SAMPLES)
    assert untimed == len(SETTLING) + clock.FEW


def test_a_sample_of_a_short_step_is_repeated_and_a_turn_has_a_least_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    samples, untimed = turn(monkeypatch, 3e-5, 1e-6)
    assert samples == pytest.approx([1e-6] * 25)  # of 0.2 ms
    assert untimed == pytest.approx(4 * 200, abs=10)


def test_a_sample_that_is_interrupted_at_the_end_of_the_warm_up_makes_the_others_no_shorter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The first sample is one step, the next four 200; another step of 4 ms makes the sixth short.
    fake = FakeClock([*[1e-6] * (1 + 3 * 200), 4e-3, 1e-6])
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: fake.now))
    timed = Timed(fake.step)
    samples = timed.turn()["seconds"]
    assert samples == pytest.approx([1e-6] * len(samples))
    assert fake.steps == 1 + 4 * 200 + 10 + len(samples) * 200


@pytest.mark.parametrize(
    ("seconds", "threads", "samples", "untimed"),
    [(0.01, 1, 5, 6), (0.03, 1, 4, 5), (0.06, 1, 1, 1), (0.06, 2, 2, 3), (0.4, 1, 1, 1)],
)
def test_long_steps_take_fewer_samples(
    seconds: float, threads: int, samples: int, untimed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = turn(monkeypatch, seconds, threads=threads)
    assert found == (pytest.approx([seconds] * samples), untimed)


def test_a_step_is_long_only_if_it_is_when_its_memory_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    samples, untimed = turn(monkeypatch, 0.11, 0.06, *[0.012] * 20)
    assert samples == pytest.approx([0.012] * 5)
    assert untimed > 2
    fake = FakeClock([0.4])
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: fake.now))
    timed = Timed(fake.step)
    for steps in (2, 3, 4):  # Two in the first turn, later one.
        assert timed.turn()["seconds"] == pytest.approx([0.4])
        assert fake.steps == steps


def test_steps_that_never_settle_are_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    falling = [1e-2 * 0.95**number for number in range(400)]
    samples, untimed = turn(monkeypatch, *falling)
    spent = sum(falling[:untimed])
    assert clock.MOST_SECONDS <= spent <= clock.MOST_SECONDS + 2 * falling[0]
    assert len(samples) == clock.SAMPLES


def test_noise_is_not_warmed_up() -> None:
    rng = np.random.default_rng(0)
    counts: list[int] = []
    for _ in range(1000):
        samples = [1.0]
        while not clock.settled(samples):
            samples.append(1 + rng.exponential(0.1))
        counts.append(len(samples))
    assert statistics.mean(counts) < 9
    assert max(counts) < 30


@pytest.mark.parametrize(
    ("waiting", "untimed"),
    # Unknown; always; only at first, longer than samples take to settle; never.
    [(None, 31), ([0.5], 31), ([0.5] * 9 + [0.04], 13), ([0.04], 6)],
)
def test_threads_spread_before_they_are_timed(
    waiting: list[float] | None, untimed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    *first, last = waiting or [None]
    waits = Mock(side_effect=itertools.chain(first, itertools.repeat(last)))
    monkeypatch.setattr(clock, "waited", waits)
    assert turn(monkeypatch, 1e-3, threads=2)[1] == pytest.approx(untimed, abs=1)
    assert turn(monkeypatch, 1e-3)[1] == 6


def test_what_comes_before_a_step_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeClock([1e-4])
    seen = list[int]()

    def before() -> tuple[int]:
        fake.now += 5.0
        seen.append(fake.steps)
        return (len(seen),)

    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: fake.now))
    timed = Timed(fake.step, before, repeat=4)
    assert [timed.sample() for _ in range(3)] == pytest.approx([1e-4] * 3)
    assert seen == [0, 4, 8]


def test_cold_caches_are_emptied_before_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    timed = Timed(
        lambda: done.append("step"),
        lambda: done.append("before") or (),  # Restoring inputs would warm them up again.
        evict=lambda: done.append("evict"),
    )
    samples = timed.turn()["seconds"]
    assert done == ["before", "evict", "step"] * (len(done) // 3)
    assert len(done) // 3 > len(samples) >= clock.SAMPLES
    assert timed.repeat == 1


@pytest.mark.parametrize("threads", [1, 3])
def test_an_eviction_overwrites_twice_the_caches(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.machine.caches", lambda: {"L1": 100, "L2": 1000, "L3": 5000})
    monkeypatch.setattr(clock.os, "cpu_count", lambda: 8)
    eviction = clock.Eviction()
    eviction.step(threads, ThreadPoolExecutor(threads))()
    assert eviction.memory.nbytes == 2 * 8 * 1100
    assert (eviction.memory == 1).all()


def write_delays(folder: Path, **delays: tuple[int, int]) -> None:
    for thread, (ran, delayed) in delays.items():
        (folder / thread).mkdir(exist_ok=True)
        (folder / thread / "schedstat").write_text(f"{ran} {delayed} 7\n")


def test_waiting_for_a_cpu_is_added_over_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "THREADS", tmp_path)
    write_delays(tmp_path, a=(5, 10_000_000), b=(5, 20_000_000), ended=(5, 90_000_000))
    before = clock.run_times(1)
    (tmp_path / "ended" / "schedstat").unlink()
    write_delays(tmp_path, a=(5, 11_000_000), b=(5, 24_000_000), new=(5, 5_000_000))
    assert clock.waited(before, 0.02) == pytest.approx(0.5)


def test_the_threads_that_compute_get_a_cpu_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: dict[int, set[int]] = {}
    monkeypatch.setattr(clock, "THREADS", tmp_path)
    monkeypatch.setattr(clock.os, "getpid", lambda: 10)
    monkeypatch.setattr(clock.os, "sched_getaffinity", Mock(return_value={4, 2, 9}))
    monkeypatch.setattr(clock.os, "sched_setaffinity", pinned.__setitem__)
    write_delays(tmp_path, **{"10": (100, 0), "11": (900, 0), "12": (50, 0), "13": (50, 0)})
    before = clock.run_times(0)
    write_delays(tmp_path, **{"10": (200, 0), "12": (70, 0), "13": (60, 0)})
    assert not clock.spread(before, 4)  # One of four has not computed, and there are 3 CPUs.
    assert pinned == {}
    assert clock.spread(before, 3)
    assert pinned == {10: {2}, 12: {4}, 13: {9}}
    pinned.clear()
    write_delays(tmp_path, **{"14": (99, 0)})  # It was started by the step.
    assert not clock.spread(clock.run_times(0), 2)
    assert pinned == {}


def test_threads_are_spread_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "spread", spread := Mock(side_effect=[False, True]))
    for threads, calls in ((1, 0), (2, 2)):
        timed = Timed(lambda: None, threads=threads)
        for _ in range(4):
            timed.turn()
        assert spread.call_count == calls


@pytest.mark.parametrize("known", [{}, {"a": (0, 0)}])
def test_waiting_is_unknown_where_the_system_does_not_count_it(
    known: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "THREADS", tmp_path if known else tmp_path / "absent")
    write_delays(tmp_path, **known)
    assert Timed(lambda: None).turn()["waited"] is None


@pytest.mark.parametrize(("spinning", "checks"), [(0, 2), (3, 5), (1000, clock.CHECKS)])
def test_threads_that_spin_are_waited_for_until_they_sleep(
    spinning: int, checks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent, slept = 0.0, list[float]()

    def sleep(seconds: float) -> None:
        nonlocal spent
        slept.append(seconds)
        spent += seconds if len(slept) <= spinning else 0.0

    fake = SimpleNamespace(process_time=lambda: spent, sleep=sleep)
    monkeypatch.setattr(clock, "time", fake)
    clock.wait_for_sleep()
    assert len(slept) == checks
