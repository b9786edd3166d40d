"""The small results that are kept, and the README's section about one of them."""

from pathlib import Path

import pytest
from helpers.kernel_results import candidate, found, record

from benchmarks import ladders
from benchmarks.harness import figures
from benchmarks.render import summary

ROWS = [
    candidate("loops", packed=0.5, loop=["jne"], counters={"cycles": 5}),
    candidate("tile", wrong="y[0] is nan"),
    candidate("trained", trained=True, turns=[[0.01] * 2] * 6),
    candidate("parallel", 2, trained=True, unresolved="1.1 CPUs", turns=[[0.008] * 2] * 6),
    candidate("NumPy", reference=True),
    candidate("PyTorch", by="torch", reference=True, turns=[[0.025] * 2] * 6),
    candidate("PyTorch", 2, by="torch", reference=True, unresolved="1.1 CPUs"),
]
TWIN = candidate("trained", turns=[[0.01] * 2] * 6)
THEIRS = candidate("PyTorch", by="torch", turns=[[0.025] * 2] * 6)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return the file of a result with the ladder of the README and another case."""
    shown = record(rows=ROWS, shape="lecture", controls=[TWIN, THEIRS])
    other = record(rows=ROWS[:6], direction="dx", controls=[TWIN, THEIRS])
    shown["limits"].append({"name": "read", "threads": 1, "rate": 11e9, "turns": []})
    case = {"benchmark": "kernels", "again": [other], "warnings": []}
    figures.write(tmp_path / "whole.json", found(shown, other, **case))
    return tmp_path / "whole.json"


def test_a_small_result_has_the_kernels_of_training_peers_limits_and_one_ladder(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / "small.json"
    monkeypatch.setattr("sys.argv", ["summary", str(source), str(target)])
    summary.main()
    kept = figures.read(target)
    assert kept["limits"] == figures.read(source)["limits"]
    assert kept["again"] == []
    names = [[row["rung"] for row in case["rows"]] for case in kept["cases"]]
    ladder = ["loops", "tile", "trained", "parallel"]
    assert names == [[*ladder, "NumPy", "PyTorch", "PyTorch"], [*ladder[2:], "NumPy", "PyTorch"]]
    first, second = kept["cases"]
    assert not {"working_set", "cache"} & {*first}
    assert set(first["rows"][0]) == {"rung", "seconds", "fraction"}
    assert [("gain" in case["rows"][-5 + place]) for case, place in ((first, 0), (second, 1))] == [
        True, False
    ]  # fmt: skip
    assert [(each["name"], each["threads"]) for each in first["limits"]] == [
        ("peak", 1), ("read", 1), ("peak", 2), ("triad", 2)
    ]  # fmt: skip
    assert capsys.readouterr().out == summary.section(kept, "small") + "\n"


def test_the_section_has_the_ladder_and_how_long_pytorch_takes(source: Path) -> None:
    text = summary.section(figures.read(source), "some-cpu")
    ideas = {rung.name: rung.idea for rung in ladders.rungs("matmul")}
    assert text.splitlines() == [
        "`matmul forward` at the shape `lecture`, on an",
        "Some CPU with 256-bit vectors and 2 CPUs,",
        "from [`results/some-cpu.json`](results/some-cpu.json):",
        "",
        "| rung | idea | ms | gain | GFLOP/s | of limit |",
        "|---|---|---|---|---|---|",
        f"| loops | {ideas['loops']} | 41.0 |  | 2.0 | 20% |",
        f"| trained | {ideas['trained']} | 10.0 | 4.10 (4.00–4.20) ▲ | 8.0 | 80% |",
        f"| parallel ×2 | {ideas['parallel']} | 8.0 | 1.25 (1.25–1.25) ? | 10.0 | 100% |",
        "",
        "On 1 thread PyTorch takes 2.50 times as long as the",
        "kernels of training (geometric mean of 2 cases).",
    ]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["SOURCE"], "expected RESULT.json and results/NAME.json"),
        (["SOURCE", "SOURCE"], "exists already, and nothing is overwritten"),
        (["no.json", "new.json"], "no.json cannot be read: No such file or directory"),
        (["OTHER", "new.json"], "other.json has no matmul forward lecture"),
    ],
)
def test_what_cannot_be_summarised_is_refused_in_one_line(
    arguments: list[str], line: str, source: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    other = source.with_name("other.json")
    figures.write(other, found(record(), benchmark="kernels"))
    paths = {"SOURCE": str(source), "OTHER": str(other)}
    monkeypatch.chdir(source.parent)
    monkeypatch.setattr("sys.argv", ["summary", *(paths.get(each, each) for each in arguments)])
    with pytest.raises(SystemExit, match="2"):
        summary.main()
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1
    assert not Path("new.json").exists()
