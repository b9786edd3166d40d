"""Functions that a lower layer calls in a higher one, which it cannot import.

gradcheck compares gradients, and study, which uses it, runs a backward line by line. The package's
__init__ connects them: it sets the functions here, which import study when they are first called.
"""

from collections.abc import Callable
from typing import Any, NamedTuple


class Explanation(NamedTuple):
    """The place of a backward's first mistake, and the causes of its wrong gradients by name."""

    where: str
    causes: dict[str, str]


def unexplained(*args: Any) -> Explanation | None:
    """Explain nothing."""
    return None


def no_cause(*args: Any) -> str:
    """Give no cause."""
    return ""


# Takes forward, backward, the arguments by name and the seed.
explain: Callable[..., Explanation | None] = unexplained
# Takes the site, the planted bug and the seed; returns the cause that study gives.
cause_of_bug: Callable[..., str] = no_cause
