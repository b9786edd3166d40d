"""The adder: its examples, its targets, and that it learns to add."""

from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from tinygpt_np import GPT
from tinygpt_np.lecture import chapter_19_adder as adder
from tinygpt_np.training import engine

SUMS = adder.all_sums()


def test_every_sum_occurs_once_with_its_answer_backwards() -> None:
    assert SUMS.shape == (10_000, 7)
    pairs = [divmod(place, 100) for place in range(10_000)]
    expected = [f"{a:2d} + {b:2d} = {a + b}" for a, b in pairs]
    assert [adder.equation(digits) for digits in SUMS] == expected


def test_only_the_digits_of_the_answer_are_targets() -> None:
    tokens, targets = adder.example(SUMS[[8550, 9999]])
    assert tokens.tolist() == [[8, 5, 5, 0, 5, 3], [9, 9, 9, 9, 8, 9]]
    assert targets.tolist() == [[-1, -1, -1, 5, 3, 1], [-1, -1, -1, 8, 9, 1]]
    assert (SUMS >= 0).all()  # The sums themselves are not changed.


def test_a_sum_with_a_wrong_digit_is_not_correct() -> None:
    for place in range(3):
        made = SUMS[:, 4:].copy()
        made[:3000, place] += 1
        model: Any = Mock(generate=Mock(return_value=iter(made.T)))
        assert adder.correct(model, SUMS).tolist() == [False] * 3000 + [True] * 7000
        (given, count), rules = model.generate.call_args
        np.testing.assert_array_equal(given, SUMS[:, :4])
        assert (count, rules) == (3, {"temperature": 0})


def test_no_held_out_sum_is_trained_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def learn(model: GPT, train: np.ndarray, held_out: np.ndarray, rng: object) -> int:
        seen.append((train, held_out))
        return adder.STEPS

    monkeypatch.setattr(adder, "learn", learn)
    adder.main()
    ((train, held_out),) = seen
    assert (len(train), len(held_out)) == (9500, 500)
    assert len(np.unique(np.concatenate([train, held_out]), axis=0)) == 10_000


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
