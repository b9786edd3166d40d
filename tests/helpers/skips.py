"""The option --no-skips: fail a run in which a test is skipped, for an environment with everything.

Without it, a test could be skipped everywhere because a library is missing, and go unnoticed.
"""

from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option --no-skips."""
    parser.addoption("--no-skips", action="store_true", help="fail if any test or file is skipped")


def pytest_sessionfinish(session: Any) -> None:
    """Fail a run that otherwise passed; pytest prints the skips. Workers of xdist see a part."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    asked = session.config.getoption("--no-skips") and not hasattr(session.config, "workerinput")
    if asked and session.exitstatus == 0 and {"skipped", "xfailed"} & {*reporter.stats}:
        session.exitstatus = 1
