"""A run tests a part of the cases, and all of them are tested in turn."""

from datetime import date

import pytest
from campaign import sample


class Day(date):
    """A day that the test chooses."""

    number = 0

    @classmethod
    def today(cls) -> date:
        return date.fromordinal(cls.number)


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
