"""The options --no-skips and --skips-to, for environments that lack a library or have all.

Without them, a test could be skipped everywhere because a library is missing, and go unnoticed.
"""

from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    parser.addoption("--no-skips", action="store_true", help="fail if any test or file is skipped")
    parser.addoption("--skips-to", type=Path, help="write the names of skipped tests to this file")


def pytest_sessionfinish(session: Any) -> None:
    """Use the skips, which pytest prints. Workers of xdist see a part of them."""
    config = session.config
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if hasattr(config, "workerinput"):
        return
    if path := config.getoption("--skips-to"):
        # In this form pytest reads them again, given as @FILE.
        names = dict.fromkeys(report.nodeid for report in reporter.stats.get("skipped", []))
        path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    skipped = {"skipped", "xfailed"} & {*reporter.stats}
    if config.getoption("--no-skips") and session.exitstatus == 0 and skipped:
        session.exitstatus = 1
