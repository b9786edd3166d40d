"""`tinygpt doctor`: the machine and the results of the self-test are shown."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.commands import Captured, error_of

from tinygpt_np import backend, cli
from tinygpt_np.cli.doctor import cache_facts
from tinygpt_np.gradcheck import self_test
from tinygpt_np.gradcheck.self_test import Found


@pytest.mark.parametrize(
    ("results", "code", "expected"),
    [
        ([[Found("softmax", 1.25e-7)]], 0,
         [r"softmax +1\.2e-07 +ok", "1 operation, all correct", "compiling softmax.forward_rows;"]),
        # The second backend is correct.
        ([[Found("softmax", 1e-7), Found("gelu", 0.5)], [Found("gelu", 0.0)]], 1,
         [r"gelu +5\.0e-01 +wrong", "2 operations, 1 wrong"]),
        ([[Found("gelu", float("nan"), "LoweringError: no [bold] idea")]], 1,
         [r"gelu: LoweringError: no \[bold\] idea", "1 wrong"]),
        ([], 0, ["no compiled backend"]),
    ],
)  # fmt: skip
def test_the_machine_and_the_results_are_shown(
    results: list[list[Found]],
    code: int,
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    given = iter(results)

    def found(name: str, announce: Callable[[str], None]) -> list[Found]:
        announce("softmax.forward_rows")
        return next(given)

    monkeypatch.setattr(backend, "BACKENDS", ["numpy", *(f"b{n}" for n in range(len(results)))])
    monkeypatch.setattr(self_test, "self_test", found)
    if code:
        with pytest.raises(SystemExit) as stop:
            cli.main(["doctor"])
        assert stop.value.code == code
    else:
        cli.main(["doctor"])
    out = capsys.readouterr().out
    names = {*re.findall(r"^([\w-]+)  ", out, re.MULTILINE)}
    assert names >= {"processor", "vectors", "cores", "BLAS", "Numba", "NumPy", "Python", "cache"}
    for line in expected:
        assert re.search(line, out), line
    assert "nan" not in out
    assert ("correct" in out) == any(all(each.ok for each in found) for found in results)


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
