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


LISTED_SKIP = report("tests/test_b.py::test_c[2]", "needs tiktoken")


@pytest.mark.parametrize(
    ("reports", "problem"),
    [
        ([LISTED_SKIP, LISTED_SKIP, report("tests/test_b.py::test_d", None)], None),
        ([LISTED_SKIP, report("tests/test_b.py::test_d[2]", "no browser")],
         "tests/test_b.py::test_d: skipped (no browser), but skips.toml lists None"),
        ([report("tests/test_b.py::test_c", None)],
         "tests/test_b.py::test_c: skipped (None), but skips.toml lists needs tiktoken"),
        ([report("tests/test_b.py::test_c", "needs numba")],
         "tests/test_b.py::test_c: skipped (needs numba), but skips.toml lists needs tiktoken"),
    ],
)  # fmt: skip
def test_skips_other_than_the_listed_ones_fail_the_run(
    reports: list[Any], problem: str | None
) -> None:
    skips, session = Skips(LISTED), SimpleNamespace(exitstatus=0)
    skips.pytest_collectreport(report("tests/test_a.py", "needs torch"))
    for each in reports:
        skips.pytest_runtest_logreport(each)
    skips.pytest_sessionfinish(session)
    assert skips.problems() == ([] if problem is None else [problem])
    assert session.exitstatus == (problem is not None)
