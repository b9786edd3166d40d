"""1,500 malformed files in six families: each is refused by name, or harmless.

A run tests one case in ten, other ones each day. A case that fails is printed with the command that
runs it alone, PYTHONPATH=tests python -m campaign FAMILY NUMBER; without NUMBER all cases of
a family are run, and without FAMILY all of them.
"""

from datetime import date

import pytest
from campaign.family import CASES, FAMILIES
from helpers.optional import needs

EVERY = 10


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_malformed_input_is_refused_by_name_or_harmless(name: str) -> None:
    if name == "nanogpt":
        needs("torch")
    first = date.today().toordinal() % EVERY
    found = map(FAMILIES[name].examine, range(first, CASES, EVERY))
    assert not [problem for problem in found if problem]
