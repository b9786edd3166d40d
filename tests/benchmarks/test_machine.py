"""Facts about the machine in results."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import machine


@pytest.mark.parametrize(
    ("status", "expected"), [("", "abc"), (" M README.md\n", "abc+"), (None, None)]
)
def test_a_clone_with_changes_is_marked_and_outside_of_git_there_is_no_commit(
    status: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(command: list[str], **_: Any) -> str:
        if status is None:
            raise subprocess.CalledProcessError(128, "git")
        return "abc\n" if "rev-parse" in command else status

    monkeypatch.setattr(subprocess, "check_output", git)
    assert machine.commit() == expected


def test_caches_are_those_that_hold_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CACHES", tmp_path)
    assert machine.caches() == machine.USUAL_CACHES
    for index, (kind, size) in enumerate(
        (("Data", "48K"), ("Instruction", "32K"), ("Unified", "3M"), ("Unified", "all"))
    ):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, value in {"type": kind, "level": str(max(index, 1)), "size": size}.items():
            (folder / name).write_text(f"{value}\n")
    assert machine.caches() == {"L1": 48 << 10, "L2": 3 << 20}
