"""With --no-skips, a skipped test fails the run; --skips-to writes the names of skipped tests."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from helpers import options

OWN = """
import pytest

@pytest.mark.parametrize("text", ["a b", "c"])
def test_with(text): pytest.skip("not here")
def test_right(): pass
"""


@pytest.mark.parametrize(
    ("no_skips", "stats", "status"),
    [(True, ["passed", "skipped"], 1), (True, ["passed"], 0), (False, ["skipped"], 0)],
)
def test_a_skip_fails_a_run_in_which_there_should_be_none(
    no_skips: bool, stats: list[str], status: int
) -> None:
    reporter = SimpleNamespace(stats={kind: [1] for kind in stats})
    config: Any = Mock(spec=["getoption", "pluginmanager"])
    config.getoption.side_effect = {"--no-skips": no_skips, "--skips-to": None}.get
    config.pluginmanager.get_plugin.return_value = reporter
    session = SimpleNamespace(config=config, exitstatus=0)
    options.pytest_sessionfinish(session)
    assert session.exitstatus == status


def test_the_skipped_tests_of_a_run_can_be_the_tests_of_another(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(OWN)
    (tmp_path / "test_file.py").write_text("import pytest\npytest.importorskip('no_such')\n")
    (tmp_path / "conftest.py").write_text("from helpers.options import *\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(options.__file__).parents[1])}
    again = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", "--rootdir=."]
    found = [
        subprocess.run(
            [*again, argument], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        for argument in ("--skips-to=skipped.txt", "@skipped.txt")
    ]
    names = (tmp_path / "skipped.txt").read_text().splitlines()
    tests = [f"test_own.py::test_with[{text}]" for text in ("a b", "c")]
    assert sorted(names) == ["test_file.py", *tests]
    assert "1 passed, 3 skipped" in found[0].stdout
    assert "3 skipped" in found[1].stdout
    assert "passed" not in found[1].stdout
