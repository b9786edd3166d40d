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
from tinygpt_np.compiled import tuning
from tinygpt_np.compiled.simd import blocks
from tinygpt_np.compiled.simd.blocks import Blocks
from tinygpt_np.compiled.tuning import Tried
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
    assert re.search(
        r"^blocks +in_place [\d,]+, by_tiles [\d,]+, measured on \w+", out, re.MULTILINE
    )
    for line in ("compiling softmax.forward_rows;", *expected):
        assert re.search(line, out), line
    assert "nan" not in out


@pytest.mark.parametrize(
    ("flags", "module"),
    [([], "tinygpt_np.gradcheck.self_test"), (["--tune"], "tinygpt_np.compiled.tuning")],
)
def test_a_numba_that_cannot_be_imported_is_reported_in_one_sentence(
    flags: list[str], module: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.delattr(module)
    monkeypatch.setitem(sys.modules, module, None)
    assert "Numba cannot be imported" in error_of(capsys, "doctor", *flags)


def test_tuning_shows_what_was_measured_and_keeps_it_for_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path))
    found, trials = Blocks(0, 256), [Tried("by_tiles", 1 << 20, 1, False),
                                     Tried("by_tiles", 256, 1.125, True)]  # fmt: skip

    def tuned(start: Blocks, report: Callable[[str, float], None]) -> tuple[Blocks, list[Tried]]:
        report("by_tiles", 0.5)
        return found, trials

    monkeypatch.setattr(tuning, "tune", tuned)
    cli.main(["doctor", "--tune"])
    out = capsys.readouterr().out
    own = tmp_path / "tinygpt-np" / "processors.json"
    for line in (
        r"^by_tiles +1,048,576 +1\.00 *$", r"^by_tiles +256 +1\.12 +chosen *$",
        f"^kept in {own}$",
        rf'"{blocks.processor()}": {{"in_place": 0, "by_tiles": 256}}$',
    ):  # fmt: skip
        assert re.search(line, out, re.MULTILINE), line
    assert blocks.read(own) == {blocks.processor(): found}
    assert blocks.chosen.__wrapped__() == (found, "measured on this machine")


def test_a_result_of_tuning_that_cannot_be_kept_is_an_error_after_it_was_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path / "file"))

    def tuned(start: Blocks, report: object) -> tuple[Blocks, list[Tried]]:
        return Blocks(0, 1), [Tried("by_tiles", 1, 1.5, True)]

    monkeypatch.setattr(tuning, "tune", tuned)
    with pytest.raises(SystemExit, match=r"^1$"):
        cli.main(["doctor", "--tune"])
    shown = capsys.readouterr()
    assert "1.50  chosen" in shown.out
    assert re.fullmatch(r"tinygpt: .*file.*\n", shown.err)


def test_a_cache_that_cannot_be_written_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path / "file"))
    assert dict(cache_facts())["cache"] == "0 kernels, 0.0 MB, and CANNOT BE WRITTEN"
