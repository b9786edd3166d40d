"""`tinygpt doctor`: the machine and the results of the self-test are shown."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import Captured, error_of

from tinygpt_np import backend, cli
from tinygpt_np.cli.doctor import cache_facts
from tinygpt_np.gradcheck import self_test as doctor
from tinygpt_np.gradcheck.self_test import Found


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Found]:
    """Replace the self-test and return the list of its results, to be filled by a test."""
    found: list[Found] = []

    def self_test(name: str, announce: Any) -> list[Found]:
        announce("softmax.forward_rows")
        return found

    monkeypatch.setattr(backend, "BACKENDS", ["numpy", "compiled"])
    monkeypatch.setattr(doctor, "self_test", self_test)
    return found


def test_the_machine_the_compilation_and_the_results_are_shown(
    found: list[Found], capsys: Captured
) -> None:
    found.append(Found("softmax", 1.25e-7))
    cli.main(["doctor"])
    out = capsys.readouterr().out
    names = {*re.findall(r"^([\w-]+)  ", out, re.MULTILINE)}
    assert names >= {"processor", "vectors", "cores", "BLAS", "Numba", "NumPy", "Python", "cache"}
    assert "compiling softmax.forward_rows; this happens only once" in out
    assert re.search(r"softmax +1\.2e-07 +ok", out)
    assert "1 operation, all correct" in out


def test_a_wrong_kernel_is_named_and_exits_with_1(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = [Found("softmax", 1e-7), Found("gelu", 0.5), Found("linear", 1e-8)]
    results = iter([wrong, [Found("gelu", 0.0)]])  # The second backend is correct.
    monkeypatch.setattr(backend, "BACKENDS", ["numpy", "first", "second"])
    monkeypatch.setattr(doctor, "self_test", lambda name, announce: next(results))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    with pytest.raises(SystemExit) as stop:
        cli.main(["doctor"])
    assert stop.value.code == 1
    out = capsys.readouterr().out
    assert re.search(r"gelu +5\.0e-01 +wrong", out)
    assert "3 operations, 1 wrong" in out


def test_an_exception_in_a_kernel_is_shown(found: list[Found], capsys: Captured) -> None:
    found.append(Found("gelu", float("nan"), "LoweringError: no [bold] idea"))
    with pytest.raises(SystemExit):
        cli.main(["doctor"])
    out = capsys.readouterr().out
    assert "gelu: LoweringError: no [bold] idea" in out
    assert "nan" not in out


def test_without_a_compiled_backend_nothing_is_tested(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(backend, "BACKENDS", ["numpy"])
    cli.main(["doctor"])
    out = capsys.readouterr().out
    assert "no compiled backend" in out
    assert "correct" not in out


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
