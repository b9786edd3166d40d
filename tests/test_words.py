"""Numbers in sentences."""

import pytest

from tinygpt_np.words import counted


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 layers"), (1, "1 layer"), (2, "2 layers"), (1001, "1,001 layers")],
)
def test_one_thing_is_said_in_the_singular(count: int, expected: str) -> None:
    assert counted(count, "layer") == expected
