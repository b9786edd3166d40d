"""2,000 malformed inputs: each is refused by its name, or known to be harmless.

A case that fails is shown with the command that runs it alone.
"""

import pytest
from campaign.family import CASES, FAMILIES
from helpers.optional import needs

CHUNK = 25


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, CASES, CHUNK))
@pytest.mark.parametrize("name", FAMILIES)
def test_a_malformed_input_is_refused_by_its_name_or_harmless(name: str, first: int) -> None:
    if name == "nanogpt":
        needs("torch")
    found = [FAMILIES[name].examine(number) for number in range(first, first + CHUNK)]
    wrong = [problem for problem in found if problem]
    assert not wrong, "\n\n".join(["", *wrong])


def test_there_are_2000_cases_in_8_families() -> None:
    assert len(FAMILIES) * CASES == 2000
    assert CASES % CHUNK == 0
