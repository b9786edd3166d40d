"""Libraries and programs that only some tests need; without them these tests are skipped."""

import warnings
from shutil import which
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


def needs_programs(*names: str) -> pytest.MarkDecorator:
    """Return the mark of a test that runs programs."""
    missing = [name for name in names if which(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {' and '.join(missing)}")
