"""`tinygpt doctor`: the machine and the results of the self-test are shown."""

import contextlib
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.commands import Captured, error_of

from tinygpt_np import cli
from tinygpt_np.cli.doctor import cache_facts
from tinygpt_np.gradcheck import self_test
from tinygpt_np.gradcheck.self_test import Found


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([Found("softmax", 1.25e-7)], [r"softmax +1\.2e-07 +ok", "1 operation, all correct"]),
        ([Found("softmax", 1e-7), Found("gelu", 0.5)],
         [r"gelu +5\.0e-01 +wrong", "2 operations, 1 wrong"]),
        ([Found("gelu", float("nan"), "LoweringError: no [bold] idea")],
         [r"gelu: LoweringError: no \[bold\] idea", "1 wrong"]),
    ],
)  # fmt: skip
def test_the_machine_and_the_results_are_shown(
    found: list[Found], expected: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def tested(announce: Callable[[str], None]) -> list[Found]:
        announce("softmax.forward_rows")
        return found

    monkeypatch.setattr(self_test, "self_test", tested)
    right = all(each.ok for each in found)
    with contextlib.nullcontext() if right else pytest.raises(SystemExit, match=r"^1$"):
        cli.main(["doctor"])
    out = capsys.readouterr().out
    names = {*re.findall(r"^([\w-]+)  ", out, re.MULTILINE)}
    assert names >= {"processor", "vectors", "cores", "BLAS", "Numba", "NumPy", "Python", "cache"}
    for line in ("compiling softmax.forward_rows;", *expected):
        assert re.search(line, out), line
    assert "nan" not in out


def test_a_numba_that_cannot_be_imported_is_reported_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.delattr("tinygpt_np.gradcheck.self_test")
    monkeypatch.setitem(sys.modules, "tinygpt_np.gradcheck.self_test", None)
    assert "Numba cannot be imported" in error_of(capsys, "doctor")


def test_a_cache_that_cannot_be_written_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path / "file"))
    assert dict(cache_facts())["cache"] == "0 kernels, 0.0 MB, and CANNOT BE WRITTEN"
