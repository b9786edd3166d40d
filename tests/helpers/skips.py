"""The option --skips ENVIRONMENT: fail unless exactly the tests listed in skips.toml are skipped.

Without it, a test could be skipped everywhere because a library is missing, and go unnoticed. Use
the option with a run of all tests.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

LISTS = Path(__file__).parents[1] / "skips.toml"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option --skips."""
    parser.addoption(
        "--skips", metavar="ENVIRONMENT", help="a table of skips.toml; any other skip fails the run"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Compare skips in the process that collects results; xdist workers do not."""
    environment: str | None = config.getoption("--skips")
    if environment is not None and not hasattr(config, "workerinput"):
        lists = tomllib.loads(LISTS.read_text(encoding="utf-8"))
        if environment not in lists:
            raise pytest.UsageError(f"--skips must be one of {', '.join(lists)}, not {environment}")
        config.pluginmanager.register(Skips(lists[environment]))


class Skips:
    """Compare skipped tests and files with the expected ones.

    expected : the reason for each file or test function, by its pytest node id without parameters
    """

    def __init__(self, expected: Mapping[str, str]) -> None:
        self.expected, self.found = expected, dict[str, str]()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Record a skipped test or file."""
        if report.skipped:
            reason = getattr(report, "wasxfail", "") or report.longrepr[2]
            self.found[report.nodeid.partition("[")[0]] = reason.removeprefix("Skipped: ")

    pytest_collectreport = pytest_runtest_logreport

    def problems(self) -> list[str]:
        """Return a line for each test whose skip is not the expected one."""
        tests = sorted({*self.found, *self.expected})
        pairs = ((test, self.found.get(test), self.expected.get(test)) for test in tests)
        return [
            f"{test}: skipped ({found}), but skips.toml lists {expected}"
            for test, found, expected in pairs
            if found != expected
        ]

    def pytest_sessionfinish(self, session: Any) -> None:
        """Fail a run that otherwise passed."""
        if self.problems() and session.exitstatus == 0:
            session.exitstatus = 1

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the problems."""
        for line in self.problems():
            terminalreporter.write_line(f"FAILED {line}", red=True)
