"""The adder: its examples, its targets, and that it learns to add."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tinygpt_np import GPT
from tinygpt_np.lecture import chapter_19_adder as adder
from tinygpt_np.training import engine

SUMS = adder.all_sums()


def test_every_sum_occurs_once_with_its_answer_backwards() -> None:
    assert SUMS.shape == (10_000, 7)
    pairs: set[tuple[int, int]] = set()
    for digits in SUMS.tolist():
        a, b = 10 * digits[0] + digits[1], 10 * digits[2] + digits[3]
        assert int("".join(map(str, reversed(digits[4:])))) == a + b
        pairs.add((a, b))
    assert pairs == {(a, b) for a in range(100) for b in range(100)}


def test_only_the_digits_of_the_answer_are_targets() -> None:
    tokens, targets = adder.example(SUMS[[8550, 9999]])
    assert tokens.tolist() == [[8, 5, 5, 0, 5, 3], [9, 9, 9, 9, 8, 9]]
    assert targets.tolist() == [[-1, -1, -1, 5, 3, 1], [-1, -1, -1, 8, 9, 1]]
    assert (SUMS >= 0).all()  # The sums themselves are not changed.


class Table:
    """A model that knows all answers, except for one wrong digit after some first numbers."""

    def __init__(self, wrong: int, place: int) -> None:
        self.wrong, self.place = wrong, place

    def generate(self, tokens: np.ndarray, count: int, temperature: float) -> Iterator[np.ndarray]:
        assert (count, temperature) == (3, 0)
        places = tokens @ np.array([1000, 100, 10, 1])  # (B,)
        digits = SUMS[places, 4:].copy()
        digits[places // 100 < self.wrong, self.place] += 1
        return iter(digits.T)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_sum_with_a_wrong_digit_is_not_correct(place: int) -> None:
    model: Any = Table(30, place)
    found = adder.correct(model, SUMS)
    assert found.tolist() == [False] * 3000 + [True] * 7000


def test_a_number_is_read_backwards() -> None:
    assert adder.number(np.array([5, 3, 1])) == 135
    assert adder.equation(SUMS[8550]) == "85 + 50 = 135"


def test_no_held_out_sum_is_trained_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[set[int], set[int]]] = []

    def learn(model: GPT, train: np.ndarray, held_out: np.ndarray, rng: object) -> int:
        weights = (1000, 100, 10, 1)
        seen.append(
            (set((train[:, :4] @ weights).tolist()), set((held_out[:, :4] @ weights).tolist()))
        )
        return adder.STEPS

    monkeypatch.setattr(adder, "learn", learn)
    adder.main()
    ((train, held_out),) = seen
    assert not train & held_out
    assert train | held_out == set(range(10_000))
    assert len(held_out) == 500


def test_ctrl_c_evaluates_what_was_learned_so_far(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, closed = engine.make, list[Any]()

    def stopped(*args: Any) -> Any:
        found = make(*args)
        monkeypatch.setattr(found, "update", interrupt)
        monkeypatch.setattr(found, "close", lambda: closed.append(found))
        return found

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "make", stopped)
    adder.main()
    out = capsys.readouterr().out
    assert "stopped after 0 steps of 3000; what it has learned so far:" in out
    assert len(closed) == 1
    assert "of 500 sums that it never saw" in out


@pytest.mark.slow
def test_it_learns_to_add(capsys: pytest.CaptureFixture[str]) -> None:
    adder.main()
    out = capsys.readouterr().out
    accuracy = out.split("are correct: ")[1].split("%")[0]
    assert float(accuracy) >= 99.0
    assert "  targets -1 -1 -1  5  3  1" in out
