"""Facts about the machine in results."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import machine


def test_the_facts_are_json() -> None:
    facts = machine.facts()
    assert json.loads(json.dumps(facts)) == facts


def test_outside_of_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise subprocess.CalledProcessError(128, "git")

    monkeypatch.setattr(subprocess, "run", fails)
    assert machine.commit() is None


def test_a_clone_with_changes_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    def git(command: list[str], **_: Any) -> Any:
        said = "abc\n" if "rev-parse" in command else " M README.md\n"
        return subprocess.CompletedProcess(command, 0, said)

    monkeypatch.setattr(subprocess, "run", git)
    assert machine.commit() == "abc+"


def cache(folder: Path, index: int, kind: str, level: str, size: str) -> None:
    place = folder / f"index{index}"
    place.mkdir()
    for name, value in {"type": kind, "level": level, "size": size}.items():
        (place / name).write_text(f"{value}\n")


def test_caches_are_those_that_hold_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache(tmp_path, 0, "Data", "1", "48K")
    cache(tmp_path, 1, "Instruction", "1", "32K")
    cache(tmp_path, 2, "Unified", "2", "3M")
    cache(tmp_path, 3, "Unified", "3", "all")
    monkeypatch.setattr(machine, "CACHES", tmp_path)
    assert machine.caches() == {"L1": 48 << 10, "L2": 3 << 20}


def test_where_nothing_is_said_of_caches_the_usual_ones_are_assumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "CACHES", tmp_path / "none")
    assert machine.caches() == machine.USUAL_CACHES
