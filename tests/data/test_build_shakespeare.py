"""The script that builds the corpus refuses a wrong archive and replaces its output atomically."""

import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import the script as a module, with an existing output in tmp_path."""
    spec = importlib.util.spec_from_file_location("builder", DATA / "build_shakespeare.py")
    assert spec
    assert spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "builder", module)
    spec.loader.exec_module(module)
    module.OUTPUT = tmp_path / "shakespeare.txt"
    module.OUTPUT.write_text("as it was", encoding="ascii")
    return module


def test_a_wrong_archive_is_refused_with_both_checksums(builder: Any, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(b"something else")
    found = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(builder.BuildError, match=f"SHA-256 {found}, expected f393d09d07ea"):
        builder.build(archive)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["absent"], "cannot read absent: No such"), (["one", "two"], "takes one argument")],
)
def test_a_failed_build_says_why_and_keeps_the_old_file(
    builder: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    reason: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["build_shakespeare.py", *arguments])
    assert builder.main() == 1
    assert capsys.readouterr().err.startswith(f"build_shakespeare: {reason}")
    assert list(builder.OUTPUT.parent.iterdir()) == [builder.OUTPUT]
    assert builder.OUTPUT.read_text(encoding="ascii") == "as it was"


@pytest.fixture
def built(builder: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "argv", ["build_shakespeare.py", "archive"])
    monkeypatch.setattr(builder, "build", {Path("archive"): "First Citizen:\n"}.get)
    return builder


def test_a_build_that_succeeds_replaces_the_old_file(built: Any) -> None:
    assert built.main() == 0
    assert built.OUTPUT.read_bytes() == b"First Citizen:\n"


def test_the_old_file_stays_if_the_new_one_cannot_be_renamed(
    built: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "replace", Mock(side_effect=OSError("no space")))
    assert built.main() == 1
    assert built.OUTPUT.read_text(encoding="ascii") == "as it was"
