"""Result files."""

import json
import re
from pathlib import Path

import pytest
from helpers.kernel_results import record

from benchmarks import ROOT
from benchmarks.harness import figures


def test_a_file_has_medians_with_their_intervals_but_no_samples(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    whole = record()
    whole["rows"][1] |= {"loop": ["jne .L1"], "loop_flops": 2}
    figures.write(path, {"cases": [whole]})
    (case,) = json.loads(path.read_text(encoding="utf-8"))["cases"]
    _, tiles, shared, theirs = case["rows"]
    assert tiles == {
        "rung": "tiles", "trained": True, "first_seconds": 0.007, "compile_seconds": 0.25,
        "seconds": [0.01025, 0.01, 0.0105, 0.9688], "steady": [0.01025, 0.01025, 0.01025, 0.7812],
        "gain": [4.0, 4.0, 4.0, 0.9688], "verdict": "faster",
        "fraction": [0.7805, 0.7619, 0.8, 0.9688],
    }  # fmt: skip
    assert shared["threads"] == 2
    assert (theirs["by"], theirs["reference"], theirs["by_ours"][0]) == ("torch", True, 2.0)
    assert case["limits"][0] == {"name": "peak", "threads": 1, "rate": 10e9}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "cannot be read: No such file or directory"),
        ("{", "is not JSON"),
        ("[]", "is no result of python -m benchmarks kernels"),
        ('{"benchmark": "train", "format": 2}', "is no result of python -m benchmarks kernels"),
        ('{"benchmark": "kernels"}', "has format 1 of results; known is 2: run it again"),
        ('{"benchmark": "kernels", "format": 3}', "has format 3 of results; known is 2: run it"),
    ],
)
def test_files_that_are_no_results_or_of_another_format_are_refused_by_name(
    text: str | None, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"a.json {reason}")):
        figures.read(path)


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    figures.write(tmp_path / "a.json", {"benchmark": "kernels", "cases": [record()]})
    assert [case["rounds"] for case in figures.read(tmp_path / "a.json")["cases"]] == [6]


def test_the_results_that_are_kept_are_small() -> None:
    kept = [path for path in (ROOT / "benchmarks/results").iterdir() if "kernels-" not in path.name]
    assert {path.suffix for path in kept} == {".json"}
    assert sum(path.stat().st_size for path in kept) < 200_000
