"""Fixtures for formats of weights."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.optional import needs


@pytest.fixture
def transformers() -> Iterator[Any]:
    """Import the library without its progress bars and warnings."""
    needs("torch")
    library = needs("transformers")
    library.utils.logging.disable_progress_bar()
    library.utils.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield library
