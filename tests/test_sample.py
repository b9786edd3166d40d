"""A run tests a part of the cases or of the slow tests, and all of them are tested in turn."""

from collections import Counter
from dataclasses import dataclass
from datetime import date
from typing import Any
from unittest.mock import Mock

import pytest
from helpers import sample
from helpers.options import pytest_collection_modifyitems


class Day(date):
    """A day that the test chooses."""

    number = 0

    @classmethod
    def today(cls) -> date:
        return date.fromordinal(cls.number)


@dataclass(frozen=True)
class Item:
    """A test, which may be slow."""

    number: int
    slow: bool

    def get_closest_marker(self, name: str) -> bool:
        return name == "slow" and self.slow


@pytest.mark.parametrize("chosen", ["", "1/3"])
def test_each_case_is_tested_once_in_as_many_days_as_there_are_parts(
    monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    monkeypatch.delenv("CASES", raising=False)
    if chosen:
        monkeypatch.setenv("CASES", chosen)
    monkeypatch.setattr(sample, "date", Day)
    found = list[int]()
    for number in range(740000, 740003 if chosen else 740010):
        monkeypatch.setattr(Day, "number", number)
        found += sample.sample(25, 10)
    assert sorted(found) == [*range(25)]


@pytest.mark.parametrize(("chosen", "cases"), [("all", range(25)), ("7", [7])])
def test_all_cases_or_a_single_one_can_be_chosen(
    monkeypatch: pytest.MonkeyPatch, chosen: str, cases: list[int]
) -> None:
    monkeypatch.setenv("CASES", chosen)
    assert [*sample.sample(25, 10)] == [*cases]
    assert sample.sampled(range(1, 26), 10) == [number + 1 for number in cases]


@pytest.mark.parametrize("every", [1, 3])
def test_each_slow_test_runs_once_in_as_many_days_and_the_others_each_day(
    monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    monkeypatch.setattr(sample, "date", Day)
    config = Mock(getoption={"--slow": every}.get)
    runs = Counter[int]()
    for number in range(740000, 740000 + every):
        monkeypatch.setattr(Day, "number", number)
        items: list[Any] = [Item(number, number % 3 > 0) for number in range(10)]
        pytest_collection_modifyitems(config, items)
        runs.update(item.number for item in items)
        left_out = config.hook.pytest_deselected.call_args.kwargs["items"]
        assert sorted(item.number for item in [*left_out, *items]) == [*range(10)]
    assert runs == {number: 1 if number % 3 else every for number in range(10)}
