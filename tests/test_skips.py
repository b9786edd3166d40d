"""With --no-skips, a skipped test fails the run."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from helpers import skips


@pytest.mark.parametrize(
    ("no_skips", "stats", "status"),
    [(True, ["passed", "skipped"], 1), (True, ["passed"], 0), (False, ["skipped"], 0)],
)
def test_a_skip_fails_a_run_in_which_there_should_be_none(
    no_skips: bool, stats: list[str], status: int
) -> None:
    reporter = SimpleNamespace(stats={kind: [1] for kind in stats})
    config: Any = Mock(spec=["getoption", "pluginmanager"])
    config.getoption.return_value = no_skips
    config.pluginmanager.get_plugin.return_value = reporter
    session = SimpleNamespace(config=config, exitstatus=0)
    skips.pytest_sessionfinish(session)
    assert session.exitstatus == status
