"""The script that builds the corpus refuses a wrong archive and replaces its output atomically."""

import hashlib
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return a function that runs the script, with an existing output in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("shakespeare.txt").write_text("as it was", encoding="ascii")
    Path("wrong").write_bytes(b"something else")

    def main(*arguments: str, **names: Any) -> int:
        monkeypatch.setattr(sys, "argv", ["build_shakespeare.py", *arguments])
        script = runpy.run_path(str(DATA / "build_shakespeare.py"))["main"]
        script.__globals__.update(OUTPUT=tmp_path / "shakespeare.txt", **names)
        return script()

    return main


FOUND = hashlib.sha256(b"something else").hexdigest()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["absent"], "[Errno 2] No such file or directory: 'absent'"),
        (["one", "two"], "takes one argument"),
        (["wrong"], f"wrong has SHA-256 {FOUND}, expected f393d09d07ea"),
    ],
)
def test_a_failed_build_says_why_and_keeps_the_old_file(
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    reason: str,
) -> None:
    assert run(*arguments) == 1
    assert capsys.readouterr().err.startswith(f"build_shakespeare: {reason}")
    assert {path.name for path in Path().iterdir()} == {"shakespeare.txt", "wrong"}
    assert Path("shakespeare.txt").read_text(encoding="ascii") == "as it was"


def test_the_old_file_is_replaced_only_if_the_new_one_can_be_renamed(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = {Path("archive"): "First Citizen:\n"}.get
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", Mock(side_effect=OSError("no space")))
        assert run("archive", build=build) == 1
    assert Path("shakespeare.txt").read_bytes() == b"as it was"
    assert run("archive", build=build) == 0
    assert Path("shakespeare.txt").read_bytes() == b"First Citizen:\n"
