# pyright: basic
"""Right gradients of many functions at all scales, in float64 and float32: none is called wrong.

CASES=7 pytest tests/campaign tests only draw 7, CASES=all all of them, and CASES=1/4 one in four;
otherwise one draw in a hundred is tested, other ones each day.
"""

import os
import warnings
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest
from campaign.smooth import FUNCTIONS, draw
from helpers.sample import sample

from tinygpt_np.gradcheck import CheckError, Report, check

# EVERY has no factor in common with the number of functions.
SEED, DRAWS, EVERY, PARTS = 17, 60000, 101, 4


def examine(number: int) -> Report | None:
    """Return the report of one draw; None if an output or a gradient overflows."""
    name = [*FUNCTIONS][number % len(FUNCTIONS)]
    function, rng = FUNCTIONS[name], np.random.default_rng([SEED, number])
    dtype = ("float64", "float32")[number // len(FUNCTIONS) % 2]
    args = draw(function, rng, dtype)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            report = check(
                function.forward, function.backward, args, seed=number,
                title=f"{name}, {dtype}, draw {number}",
            )  # fmt: skip
        except (CheckError, np.linalg.LinAlgError):
            return None
    overflows = any("not finite" in problem for row in report.rows for problem in row.problems)
    return None if overflows else report


def judged(numbers: Iterable[int]) -> tuple[Counter[str], list[Report]]:
    """Return how often each verdict occurs, and the reports of accused gradients."""
    found, accused = Counter[str](), list[Report]()
    for number in numbers:
        report = examine(number)
        if report is None:
            found["overflow"] += 1
            continue
        found.update(row.verdict for row in report.rows)
        if any(row.verdict == "wrong" for row in report.rows):
            accused.append(report)
    return found, accused


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_no_right_gradient_is_accused(part: int) -> None:
    found, accused = judged(sample(DRAWS, EVERY)[part::PARTS])
    assert not accused, accused[0]
    assert "CASES" in os.environ or found["ok"] > 10 * found["unmeasured"]
