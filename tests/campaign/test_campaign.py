"""2,000 cases of malformed input: each is refused by name, or harmless.

A run tests one case in ten, other ones each day. A case that fails is printed with the command that
runs it alone, PYTHONPATH=tests python -m campaign NUMBER; without NUMBER all cases are run.
"""

from datetime import date

import pytest
from campaign.cases import examine, numbers
from campaign.faults import FAULTS
from helpers.optional import needs

EVERY = 10


@pytest.mark.slow
@pytest.mark.parametrize("section", FAULTS)
def test_a_malformed_input_is_refused_by_name_or_harmless(section: str) -> None:
    if section == "nanogpt":
        needs("torch")
    today = date.today().toordinal() % EVERY
    found = [examine(number) for number in numbers(section) if number % EVERY == today]
    assert not [problem for problem in found if problem]
