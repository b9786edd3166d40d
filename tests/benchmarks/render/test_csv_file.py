"""The CSV file of a result."""

import csv
import re
from pathlib import Path

import pytest
from helpers.kernel_results import candidate, found, record

from benchmarks import ROOT
from benchmarks.render import csv_file

README = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
COUNTS = {"instructions": 5000, "cycles": 2000.5, "misses": 3}
ROWS = [
    candidate("loops, naïve", counters=COUNTS, layouts="contiguous only", packed=0.5),
    candidate("tiles", trained=True, warnings=["A/A ratio 1.4", "noisy"], compile_seconds=0.0),
    candidate("bad", wrong="y[0] is nan"),
    candidate("theirs", by="torch", reference=True, failed="killed by signal 11"),
    candidate("shared", 2, unresolved="1.1 CPUs"),
]


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, str]]:
    """Return the rows of two cases as they are read from a file."""
    case = record(rows=ROWS)
    result = found(case, {**case, "shape": "gpt2"})
    result["options"]["cache"] = "cold"
    csv_file.write(result, tmp_path / "a.csv")
    with pytest.raises(FileExistsError):
        csv_file.write(result, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file, strict=True)]


def test_there_is_a_line_for_each_row_of_each_case(rows: list[dict[str, str]]) -> None:
    names = ["loops, naïve", "tiles", "bad", "theirs", "shared"]
    assert [(row["shape"], row["rung"]) for row in rows] == [
        (shape, name) for shape in ("cpu", "gpt2") for name in names
    ]
    assert all([*row] == [*csv_file.COLUMNS] and None not in row.values() for row in rows)


def test_a_line_has_the_facts_times_and_counts_of_a_row(rows: list[dict[str, str]]) -> None:
    loops, tiles, bad, failed, shared = rows[:5]
    expected = {
        "cpu": "Some CPU", "commit": "abc+", "cache_mode": "cold", "sizes": "M=1024",
        "flops": "80000000", "fits_cache": "L1", "state": "timed", "seconds_low": "0.001",
        "gbyte_per_second": "39.02439024390244", "peak_gflop_per_second": "10.0",
        "packed_fraction": "0.5", "instructions": "5000", "cycles": "2000.5", "cache_misses": "3",
        "layouts": "contiguous only", "gain": "", "first_step_seconds": "0.007", "reason": "",
    }  # fmt: skip
    assert {name: loops[name] for name in expected} == expected
    assert float(loops["seconds"]) == pytest.approx(0.001025)
    assert float(tiles["gain_low"]) == pytest.approx(0.1)
    assert float(tiles["fraction_of_limit"]) == pytest.approx(0.78, abs=0.01)
    assert (tiles["verdict"], tiles["trained"]) == ("slower", "True")
    assert (tiles["warnings"], tiles["compile_seconds"]) == ("A/A ratio 1.4; noisy", "0.0")
    assert (shared["threads"], shared["unresolved"]) == ("2", "1.1 CPUs")
    assert (bad["state"], bad["reason"], bad["seconds"]) == ("wrong", "y[0] is nan", "")
    assert (failed["state"], failed["reason"]) == ("failed", "killed by signal 11")
    assert failed["seconds"] == failed["time_by_ours"] == failed["gflop_per_second"] == ""


def test_the_readme_names_every_column() -> None:
    assert {*csv_file.COLUMNS} <= {*re.findall("`([a-z_]+)`", README)}
