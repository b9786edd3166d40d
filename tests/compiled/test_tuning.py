"""Tuning: which of the sizes that were measured is chosen."""

from collections.abc import Sequence

import numpy as np
import pytest

from tinygpt_np.compiled import tuning
from tinygpt_np.compiled.simd.blocks import CHOICES, Blocks
from tinygpt_np.compiled.tuning import GAIN, Call, Tried, gains, tune

START = Blocks(1 << 17, 1 << 20)
TINY = ((7, 5, True), (6, 3, False))


def test_a_gain_is_the_geometric_mean_over_matmuls_of_the_medians_over_rounds() -> None:
    first = [[2.0, 1.0], [4.0, 2.0], [9.0, 3.0]]
    # Twice as fast and half as fast, but for one round; then only the former.
    other = [[1.0, 2.0], [2.0, 4.0], [90.0, 0.03]]
    faster = [[1.0, 1.0], [1.0, 2.0], [4.5, 3.0]]
    assert gains([first, other, faster]) == pytest.approx([1, 1, 2**0.5])


def ignore(name: str, done: float) -> None:
    pass


def timed(monkeypatch: pytest.MonkeyPatch, speed: dict[Blocks, float]) -> None:
    """Let each matmul take 1 s, or 1 s divided by the speed of the sizes; less in some rounds."""
    rng = np.random.default_rng(0)

    def seconds(blocks: Blocks, matmuls: Sequence[Call]) -> list[float]:
        assert matmuls
        clock = rng.uniform(0.5, 2) if rng.random() < 0.2 else 1.0
        return [clock / speed.get(blocks, 1.0) for _ in range(6)]

    monkeypatch.setattr(tuning, "seconds", seconds)


def test_the_fastest_choice_is_taken_one_size_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = Blocks(0, 256)
    timed(monkeypatch, {START._replace(by_tiles=256): 1.2, Blocks(0, 1): 9.0, right: 1.4})
    reports: list[tuple[str, float]] = []
    found, trials = tune(START, lambda name, done: reports.append((name, done)), TINY)
    assert found == right
    assert [each[:2] for each in trials if each.taken] == [("by_tiles", 256), ("in_place", 0)]
    assert {each[:2]: round(each.gain, 1) for each in trials} == {
        ("by_tiles", 1 << 20): 1.0, ("by_tiles", 1): 1.0, ("by_tiles", 256): 1.2,
        ("in_place", 1 << 17): 1.0, ("in_place", 0): 1.2, ("in_place", 1 << 15): 0.8,
    }  # fmt: skip
    parts = [done for _, done in reports]
    assert parts == sorted(parts)
    assert parts[-1] == 1
    assert [*dict.fromkeys(name for name, _ in reports)] == [*CHOICES]


def test_every_second_round_goes_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []

    def seconds(blocks: Blocks, matmuls: Sequence[Call]) -> list[float]:
        ran.append(blocks.by_tiles)
        return [1.0]

    monkeypatch.setattr(tuning, "seconds", seconds)
    tune(START, ignore, TINY, 3)
    there = [1 << 20, 1, 256]
    assert ran[1 : 1 + 9] == [*there, *reversed(there), *there]  # After a run that compiles.


@pytest.mark.parametrize("more", [-0.005, 0.005])
def test_a_gain_that_may_be_noise_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, more: float
) -> None:
    faster = START._replace(by_tiles=1)
    timed(monkeypatch, {faster: GAIN + more})
    assert tune(START, ignore, TINY)[0] == (faster if more > 0 else START)


def test_real_matmuls_are_measured_with_all_choices() -> None:
    found, trials = tune(START, ignore, TINY, 2)
    assert {(each.name, each.size) for each in trials} == {
        (name, size) for name, sizes in CHOICES.items() for size in sizes
    }
    assert all(each.gain > 0 for each in trials)
    assert Tried("by_tiles", found.by_tiles, 1, True)[:2] in [each[:2] for each in trials]
    calls = list(tuning.calls(TINY))
    assert len(calls) == 12
    assert len(tuning.seconds(START, calls)) == 4  # Those with A across.
