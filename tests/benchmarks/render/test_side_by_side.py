"""Two results side by side."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.html_pages import Page
from helpers.kernel_results import candidate, found, record
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks.harness import figures
from benchmarks.render import side_by_side

ROWS = [
    candidate("loops"),
    candidate("tiles", trained=True, turns=[[0.01] * 2] * 6),
    candidate("shared", 2, trained=True),
    candidate("theirs", by="torch", reference=True),
    candidate("late", 2, by="torch", reference=True, unresolved="1.1 CPUs"),
    candidate("doubt [b]", by="torch", reference=True, unresolved="A/A is 1.4"),
]
FAST = [
    candidate("tiles", trained=True, turns=[[0.008] * 2] * 6),
    candidate("theirs", by="torch", reference=True, turns=[[0.012] * 2] * 6),
    candidate("late", 2, by="torch", reference=True, failed="signal 11"),
    candidate("doubt [b]", by="torch", reference=True),
    candidate("f", by="mine", reference=True),
]


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Return the files of two results that have one case in common."""
    old = found(record(rows=ROWS), record(rows=ROWS, direction="dx"))
    new = found(
        record(rows=FAST, controls=[]),
        record(rows=FAST, controls=[], sizes={"M": 7}),
        note="a note",
    )
    new["machine"] = {**new["machine"], "cpu": "Other [CPU]"}
    for name, each in (("old", old), ("new", new)):
        figures.write(tmp_path / f"{name}.json", {"benchmark": "kernels", **each})
    return [str(tmp_path / f"{name}.json") for name in ("old", "new")]


def shown(paths: list[str], width: int = 100) -> list[str]:
    """Return the lines with text, with single spaces."""
    results = [side_by_side.load(Path(path)) for path in paths]
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        side_by_side.show(side_by_side.view(results, ["old", "new"]), console)
    text = capture.get()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return [line for line in lines if line.strip(" ─")]


def test_rows_of_a_case_stand_side_by_side_and_what_only_one_has_is_listed(
    paths: list[str],
) -> None:
    lines = shown(paths)
    assert lines[:3] == ["A: old, Some CPU", "B: new, Other [CPU]", "B was a note."]
    assert lines[5:8] == [
        "limits", "A B", "peak, GFLOP/s, 1 thread 10.0 (9.00–11.0) 10.0 (9.00–11.0)"
    ]  # fmt: skip
    assert lines[9:] == [
        "geometric mean of the ratios",
        "A B",
        "theirs (torch), 1 cases 2.05 1.50",
        "matmul forward cpu: M 1,024; 80 MFLOP, 40 MB",
        "ms ms ratio ratio GFLOP/s GFLOP/s limit limit",
        "A B A B A B A B",
        "tiles 10 8 8.00 10.0 80% 100%",
        "theirs (torch) 20.5 12 2.05 1.50 3.90 6.67 39% 67%",
        "late ×2 (torch) 1.025 FAILED 0.12 ? 78.0 ?",
        "doubt [b] (torch) 1.025 1.025 0.10 ? 0.13 78.0 78.0 ? 780%",
        "Only A has shared ×2: matmul forward cpu, matmul dx cpu.",
        "Only A has tiles: matmul dx cpu.",
        "Only A has theirs (torch): matmul dx cpu.",
        "Only A has late ×2 (torch): matmul dx cpu.",
        "Only A has doubt [b] (torch): matmul dx cpu.",
        "Only B has f (mine): matmul forward cpu, matmul forward cpu.",
        "Only B has tiles: matmul forward cpu.",
        "Only B has theirs (torch): matmul forward cpu.",
        "Only B has late ×2 (torch): matmul forward cpu.",
        "Only B has doubt [b] (torch): matmul forward cpu.",
    ]


def test_in_a_narrow_window_pairs_of_columns_from_the_right_are_left_out(paths: list[str]) -> None:
    assert "ms ms ratio ratio GFLOP/s GFLOP/s" in shown(paths, 64)
    assert "ms ms ratio ratio" in shown(paths, 58)


def test_a_case_that_moves_bytes_has_bytes_per_second(paths: list[str]) -> None:
    moving = record(rows=ROWS, bytes=160_000_000)
    assert side_by_side.case_view(moving, moving)["unit"] == "GB/s"
    assert not side_by_side.is_computing(moving)
    assert side_by_side.is_computing({**moving, "limits": []})


def test_the_ratio_of_a_kernel_of_the_user_is_that_of_its_time_too() -> None:
    case = record(rows=[ROWS[1], candidate("f", by="mine", reference=True, turns=[[0.02]] * 6)])
    ratio = side_by_side.ratio_of(case["rows"][1])
    assert ratio == pytest.approx((2, 2, 2, ratio.coverage if ratio else 0))


def test_the_command_shows_tables_and_writes_a_page(
    paths: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    html = tmp_path / "both.html"
    with pytest.raises(SystemExit, match="0"):
        command.main(["side-by-side", *paths, "--html", str(html)])
    assert "A: old, Some CPU" in capsys.readouterr().out
    page = Page(html.read_text(encoding="utf-8"))
    assert (page.open, page.loaded) == ([], [])
    for said in (
        "old and new, side by side", "CPU Some CPU Other [CPU]", "note a note",
        "triad, L1, GB/s, 1 thread 10.0 (9.00–11.0)", "theirs (torch) 2.05 1.50 1",
        "ms ratio GFLOP/s limit old new old new",
        "theirs (torch) 20.5 12 2.05 2.00–2.10 1.50 1.50–1.50 3.90 6.67 39% 39% 67% 67%",
        "Only in old shared ×2 matmul forward cpu, matmul dx cpu", "Only in new f (mine) matmul",
    ):  # fmt: skip
        assert said in page.text


def test_without_a_verdict_there_is_no_mean(paths: list[str]) -> None:
    path = Path(paths[1])
    text = path.read_text(encoding="utf-8").replace('"by_ours"', '"unresolved": "so", "by_ours"')
    path.write_text(text)
    assert not any("mean" in line for line in shown(paths))


def test_files_of_the_same_name_are_told_apart_by_their_paths(
    paths: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        command.main(["side-by-side", paths[0], paths[0]])
    # A long path is broken into lines.
    assert f"B:{paths[0]},SomeCPU" in "".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": 1}, "has format 1 of results"),
        ({"cases": [{"operation": "matmul"}]}, "is no result of python -m benchmarks kernels"),
        ({"machine": None}, "is no result of python -m benchmarks kernels"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_line(
    changes: dict[str, Any], reason: str, paths: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(paths[1])
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes))
    with pytest.raises(SystemExit, match="2"):
        command.main(["side-by-side", *paths])
    said = capsys.readouterr().err
    assert f"new.json {reason}" in said
    assert said.count("\n") == 1
