"""Two results side by side: what is shown, what is refused, and how the command leaves."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from kernel_results import (
    KERNELS,
    VECTORS,
    of_ours,
    result,
    shown,
    slowed,
    verdicts,
)

from benchmarks import __main__ as command
from benchmarks import compare, kernels, machine


def test_rows_of_one_result_only_are_counted_and_named() -> None:
    old, new = result(), result()
    del old["tasks"][0]["rows"][3]
    new["tasks"][1]["rows"] = [
        each for each in new["tasks"][1]["rows"] if each["rung"] not in KERNELS
    ]
    slower, text = shown(compare.differences(old, new))
    assert not slower
    assert f"1 rows were measured only now: {VECTORS}\n" in text
    assert "2 rows were measured only before: softmax forward lecture naive, " in text


def test_other_sizes_are_another_row() -> None:
    old, new = result(), slowed(result(), 1.3, of_ours("vectors"))
    old["tasks"][0]["sizes"] = {"N": 9}
    assert VECTORS not in verdicts(old, new)
    only = {each.name for each in compare.differences(old, new) if each.old is None}
    assert VECTORS in only


def test_what_is_slower_is_shown_before_what_is_faster() -> None:
    new = slowed(result(), 0.5, of_ours("naive"))
    slower, text = shown(compare.differences(result(), slowed(new, 1.3, of_ours("vectors"))))
    assert slower
    assert text.index(VECTORS) < text.index("softmax forward cpu naive")
    assert "×1.30" in text
    assert (
        "of 36 rows 3 are slower than before and 3 faster, which takes at the least ×1.15" in text
    )


def test_what_is_only_faster_is_no_alarm() -> None:
    assert not shown(compare.differences(result(), slowed(result(), 0.5, of_ours("naive"))))[0]


def test_no_row_in_common_is_no_alarm() -> None:
    slower, text = shown(compare.differences(result(), {"tasks": []}))
    assert not slower
    assert "36 rows were measured only before: " in text


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.json"
    path.write_text(json.dumps(result()))
    return path


def test_a_result_of_this_machine_is_loaded(old: Path) -> None:
    assert compare.load(old) == result()


def broken(**changes: Any) -> str:
    return json.dumps({**result(), **changes})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{", "old.json is not JSON"),
        ("[]", "old.json holds no measurements of python -m benchmarks kernels"),
        (broken(benchmark="train"), "old.json holds no measurements of python -m"),
        (broken(tasks=[]), "old.json holds no measurements of python -m"),
        (broken(tasks=[{"operation": "softmax"}]), "old.json holds no measurements of python -m"),
        (broken(machine={}), "old.json holds no measurements of python -m"),
        (
            broken(machine={"cpu": "Z80", "vector_bits": 8}),
            "old.json is of another machine (Z80, vectors of 8 bits) than this (",
        ),
        (
            broken(machine={"cpu": machine.cpu_name(), "vector_bits": 8}),
            "vectors of 8 bits) than this (",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(old: Path, text: str, line: str) -> None:
    old.write_text(text)
    with pytest.raises(ValueError, match=f"^.*{re.escape(line)}.*$"):
        compare.load(old)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.json cannot be read: No such file or directory$"):
        compare.load(tmp_path / "none.json")


def leaves(monkeypatch: pytest.MonkeyPatch, old: Path, new: dict[str, Any] | None) -> Any:
    """The exit code of a run that finds `new`; nothing may be measured if that is None."""

    def run(*_: Any) -> dict[str, Any]:
        assert new is not None
        return new

    monkeypatch.setattr(kernels, "run", run)
    with pytest.raises(SystemExit) as left:
        command.main(["kernels", "--compare", str(old)])
    return left.value.code


def test_a_result_that_cannot_be_compared_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leaves(monkeypatch, tmp_path / "none.json", None) == 2
    assert "none.json cannot be read" in capsys.readouterr().err


def test_what_is_not_slower_leaves_with_0(monkeypatch: pytest.MonkeyPatch, old: Path) -> None:
    assert leaves(monkeypatch, old, result()) == 0


def test_a_slower_kernel_leaves_with_1(
    monkeypatch: pytest.MonkeyPatch, old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leaves(monkeypatch, old, slowed(result(), 1.3, of_ours("vectors"))) == 1
    assert "3 are slower than before" in capsys.readouterr().out


def test_a_run_that_was_stopped_leaves_with_the_code_of_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, old: Path
) -> None:
    new = {**slowed(result(), 1.3, of_ours("vectors")), "complete": False}
    assert leaves(monkeypatch, old, new) == 130
