"""The options of the tests.

--no-skips and --skips-to are for environments that lack a library or have all. Without them, a
test could be skipped everywhere because a library is missing, and go unnoticed. --slow is for runs
that take less time.
"""

from pathlib import Path
from typing import Any

import pytest
from helpers.sample import today


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    parser.addoption("--no-skips", action="store_true", help="fail if any test or file is skipped")
    parser.addoption("--skips-to", type=Path, help="write the names of skipped tests to this file")
    parser.addoption(
        "--slow", type=int, default=1, metavar="N",
        help="run one in N of the tests that are marked slow, other ones each day",
    )  # fmt: skip


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the slow tests of other days."""
    slow = [item for item in items if item.get_closest_marker("slow")]
    every: Any = config.getoption("--slow")
    kept = {*today(len(slow), every)}
    left_out = {item for number, item in enumerate(slow) if number not in kept}
    config.hook.pytest_deselected(items=[*left_out])
    items[:] = [item for item in items if item not in left_out]


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
