"""The facts that stand beside every measurement."""

import json
import subprocess
from typing import Any

import pytest

from benchmarks import machine


def test_the_facts_are_json() -> None:
    facts = machine.facts()
    assert json.loads(json.dumps(facts)) == facts


def test_a_package_that_is_missing_has_no_version() -> None:
    assert machine.version("no-such-package-of-ours") is None


def test_the_cpu_has_a_name() -> None:
    assert machine.cpu_name()


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
