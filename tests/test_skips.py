"""Skips that are not listed for an environment fail the run, and so do stale entries."""

from types import SimpleNamespace
from typing import Any

import pytest
from helpers.skips import Skips

LISTED = {"tests/test_a.py": "needs torch", "tests/test_b.py::test_c": "needs tiktoken"}


def report(test: str, reason: str | None) -> Any:
    """Return a report like pytest's; reason is None for a test that passed."""
    longrepr = None if reason is None else ("extras.py", 1, f"Skipped: {reason}")
    return SimpleNamespace(nodeid=test, skipped=reason is not None, longrepr=longrepr)


def run(*reports: Any) -> tuple[list[str], int]:
    """Return the problems and the exit status of a run that passed."""
    skips, session = Skips(LISTED), SimpleNamespace(exitstatus=0)
    skips.pytest_collectreport(report("tests/test_a.py", "needs torch"))
    for each in reports:
        skips.pytest_runtest_logreport(each)
    skips.pytest_sessionfinish(session)
    return skips.problems(), session.exitstatus


def test_skips_that_are_listed_pass() -> None:
    listed = [report(f"tests/test_b.py::test_c[{n}]", "needs tiktoken") for n in range(2)]
    assert run(*listed, report("tests/test_b.py::test_d", None)) == ([], 0)


LISTED_SKIP = report("tests/test_b.py::test_c", "needs tiktoken")


@pytest.mark.parametrize(
    ("reports", "problem"),
    [
        (
            [LISTED_SKIP, report("tests/test_b.py::test_d[2]", "no browser")],
            "tests/test_b.py::test_d is skipped (no browser), which is not on the list",
        ),
        (
            [report("tests/test_b.py::test_c", None)],
            "tests/test_b.py::test_c is on the list of skips (needs tiktoken), but was not skipped",
        ),
        (
            [report("tests/test_b.py::test_c", "needs numba")],
            "tests/test_b.py::test_c is skipped for another reason: "
            "needs numba, not needs tiktoken",
        ),
    ],
)
def test_other_skips_fail_the_run(reports: list[Any], problem: str) -> None:
    assert run(*reports) == ([problem], 1)
