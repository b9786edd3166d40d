"""A kernel of a user sets the threads of the process; the tests put them back."""

from collections.abc import Generator

import pytest
from threadpoolctl import threadpool_limits  # pyright: ignore[reportMissingTypeStubs]


@pytest.fixture(autouse=True)
def threads() -> Generator[None]:
    with threadpool_limits(1):
        yield
