"""The option --skips ENVIRONMENT: fail unless what is skipped is what skips.toml lists for it.

Otherwise a test that a library or a program is missing for would never run anywhere, unnoticed.
For a run of all tests.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

LISTS = Path(__file__).parents[1] / "skips.toml"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption("--skips", metavar="ENVIRONMENT", help="of skips.toml: fail on other skips")


def pytest_configure(config: pytest.Config) -> None:
    """Compare skips where results are collected: with xdist, that is not in its workers."""
    environment: str | None = config.getoption("--skips")
    if environment is not None and not hasattr(config, "workerinput"):
        lists = tomllib.loads(LISTS.read_text(encoding="utf-8"))
        if environment not in lists:
            raise pytest.UsageError(f"--skips must be one of {', '.join(lists)}, not {environment}")
        config.pluginmanager.register(Skips(lists[environment]))


class Skips:
    """Compares the tests and files that are skipped with those that are expected to be.

    expected: the reason for each file or test function, by its pytest node id without parameters.
    """

    def __init__(self, expected: Mapping[str, str]) -> None:
        self.expected, self.found = expected, dict[str, str]()

    def pytest_collectreport(self, report: Any) -> None:
        """Note a file that is skipped."""
        self.note(report)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note a test that is skipped."""
        self.note(report)

    def note(self, report: Any) -> None:
        if report.skipped:
            reason = getattr(report, "wasxfail", "") or report.longrepr[2]
            self.found[report.nodeid.partition("[")[0]] = reason.removeprefix("Skipped: ")

    def problems(self) -> list[str]:
        """Return a line for each skip that is not on the list, and for each on it that is not."""
        lines: list[str] = []
        for test in sorted({*self.found, *self.expected}):
            found, expected = self.found.get(test), self.expected.get(test)
            if expected is None:
                lines.append(f"{test} is skipped ({found}), which is not on the list")
            elif found is None:
                lines.append(f"{test} is on the list of skips ({expected}), but was not skipped")
            elif found != expected:
                lines.append(f"{test} is skipped for another reason: {found}, not {expected}")
        return lines

    def pytest_sessionfinish(self, session: Any) -> None:
        """Fail a run that passed."""
        if self.problems() and session.exitstatus == 0:
            session.exitstatus = 1

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say what is wrong."""
        for line in self.problems():
            terminalreporter.write_line(f"FAILED {line}", red=True)
