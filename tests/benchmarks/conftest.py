"""Fixtures of the benchmarks' tests."""

from pathlib import Path

import pytest


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let worker processes import the helpers, and let none linger after it was interrupted."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setattr("benchmarks.harness.process.PATIENCE", 0.1)
