"""Import libraries that only some tests need; without them these tests are skipped."""

import warnings
from typing import Any

import pytest


def needs(name: str) -> Any:
    """Return a library, or skip the test or file that calls this."""
    __tracebackhide__ = True  # A skip is reported where this is called.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Libraries warn while they are imported.
        reason = f"needs {name.split('.')[0]}"
        found = pytest.importorskip(name, reason=reason)
    if found.__file__ is None:  # A folder of tests, not the library of the same name.
        pytest.skip(reason, allow_module_level=True)
    return found
