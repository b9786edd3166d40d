"""Which of many cases, or of the slow tests, are tested in a run."""

import os
from collections.abc import Sequence
from datetime import date
from typing import TypeVar

Case = TypeVar("Case")


def sample(cases: int, every: int) -> range:
    """Return the numbers of the cases of today, one in `every`, or of those that CASES chooses.

    CASES=7 chooses case 7, CASES=all all of them, and CASES=1/4 one in four, other ones each day.
    """
    chosen = os.environ.get("CASES", f"1/{every}")
    if chosen == "all":
        return range(cases)
    if chosen.startswith("1/"):
        return today(cases, int(chosen.removeprefix("1/")))
    return range(int(chosen), int(chosen) + 1)


def sampled(cases: Sequence[Case], every: int) -> list[Case]:
    """Return the cases that `sample` chooses of some."""
    numbers = sample(len(cases), every)
    return [case for number, case in enumerate(cases) if number in numbers]


def today(cases: int, every: int) -> range:
    """Return the numbers of the cases of today, one in `every`."""
    return range(date.today().toordinal() % every, cases, every)
