"""Every command runs in a folder of its own."""

from pathlib import Path

import pytest
from helpers.tiny_run import TEXT


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a text in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path
