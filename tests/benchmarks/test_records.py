"""Records of the speedrun: times in words, ratios, the file and its table."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import records
from tinygpt_np.config import TrainConfig
from tinygpt_np.storage import files

FOUND: dict[str, Any] = {
    "machine": {
        "date": "2026-11-29T08:00:00+00:00", "commit": "0123456789abcdef+", "cpu": "Some CPU",
        "versions": {"numba": "0.6", "torch": None, "numpy": "2"},
    },
    "options": {"threads": 2, "seeds": (1, 2, 3), "evaluations": 40, "data": "x"},
    "results": {
        "fast": {
            "by": "ours", "seeds": [1, 2, 3], "complete": [True] * 3, "steps": 500,
            "times": {"1.9": [8.123, 7.5, 9.0], "1.7": [None, 20.0, 30.0], "1.5": [None] * 3},
            "seconds": [40.0, 41.004, 39.0], "best": [1.71234, 1.69, 1.68],
            "warm_up": [1.0, 1.0, 1.0],
        },
        "broken": {"by": "torch", "failed": "no compiler", "seeds": [], "times": {"1.9": []}},
    },
}  # fmt: skip
RECIPES = {"fast": replace(TrainConfig(), learning_rate=4e-3, seed=7, data="elsewhere")}
ROW = (
    "| 2026-11-29 | 0123456 | Some CPU | 2 | fast | 8.1 (7.5–9.0) | 30.0 (20.0–never) "
    "| never | 40.0 (39.0–41.0) | 1.690 (1.680–1.712) |"
)


def times(*found: float | None) -> dict[str, Any]:
    lists = {"seeds": [*range(len(found))], "seconds": [90.0] * len(found)}
    return {**lists, "times": {"1.9": found}, "complete": [True] * len(found)}


def test_a_time_is_the_median_with_the_lowest_and_the_highest() -> None:
    ended = [True] * 3
    assert records.time([8.25, 7.5, 9.0], ended) == "8.2 (7.5–9.0)"
    assert records.time([8.0, 8.01, 7.99], ended) == "8.0"
    assert records.time([0.1874, 1.5, 0.09], ended) == "0.187 (0.090–1.5)"
    assert records.time([None, 7.5, 9.0], ended) == "9.0 (7.5–never)"
    assert records.time([None, 7.5, None], ended) == "never (7.5–never)"
    assert records.time([None] * 3, ended) == "never"


def test_a_loss_that_a_stopped_run_has_not_reached_is_not_said_to_be_never_reached() -> None:
    assert records.time([7.5, None, None], [True, False, True]) == "never (7.5–never)"
    assert records.time([7.5, None, 9.5], [True, False, True]) == "8.5 (7.5–9.5)"
    assert records.time([None], [False]) == "–"


def test_a_ratio_is_the_median_over_the_seeds() -> None:
    assert records.ratio(times(10.0, 20.0, 5.0), times(80.0, 140.0, 60.0), "1.9") == (
        "8.00 (7.00–12.00)"
    )


def test_there_is_no_ratio_if_either_was_stopped_before_the_loss() -> None:
    assert records.ratio(times(10.0, 20.0), times(80.0), "1.9") == ""
    assert records.ratio(times(10.0), times(80.0, 70.0), "1.9") == ""
    assert records.ratio(times(), times(), "1.9") == ""
    stopped = times(80.0, None) | {"complete": [True, False]}
    assert records.ratio(times(10.0, 20.0), stopped, "1.9") == ""
    assert records.ratio(times(10.0, 20.0), stopped | times(80.0, 70.0), "1.9") != ""


def test_of_a_loss_that_they_never_reach_a_ratio_is_the_least_and_that_we_do_not_none() -> None:
    assert records.ratio(times(10.0, 20.0), times(80.0, None), "1.9") == (
        "at least 6.25 (4.50–8.00)"
    )
    assert records.ratio(times(10.0, None), times(80.0, 80.0), "1.9") == ""


def test_a_record_says_what_was_run_and_where(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    path.write_text('{"benchmark": "speedrun", "records": []}')
    record = records.record_of(FOUND, RECIPES)
    records.append(path, record)
    records.append(path, record | {"commit": None})
    first, second = records.read(path)
    (row,) = first["recipes"]
    assert (first["date"], first["commit"], second["commit"]) == (
        "2026-11-29", "0123456789abcdef+", None,
    )  # fmt: skip
    assert (first["threads"], first["seeds"], first["evaluations"]) == (2, [1, 2, 3], 40)
    assert first["versions"] == {"numba": "0.6", "torch": None}
    assert row["settings"] == {"learning_rate": 4e-3}
    assert row["times"] == {"1.9": [8.12, 7.5, 9.0], "1.7": [None, 20, 30], "1.5": [None] * 3}
    assert (row["seconds"], row["best"]) == ([40, 41, 39], [1.7123, 1.69, 1.68])


def test_a_record_that_cannot_be_written_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "all.json"
    path.write_text('{"benchmark": "speedrun", "records": [{"date": "old"}]}')

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync_file", fail)
    with pytest.raises(files.FileError, match="the disk is full"):
        records.append(path, {"date": "new"})
    assert records.read(path) == [{"date": "old"}]
    assert [each.name for each in tmp_path.iterdir()] == ["all.json"]


def test_the_table_has_a_row_for_each_recipe_of_each_record() -> None:
    record = json.loads(json.dumps(records.record_of(FOUND, RECIPES)))
    older = {**record, "recipes": [{**record["recipes"][0], "times": {"2.1": [3.0, 3.0, 3.0]}}]}
    head, line, *rows = records.table([record]).splitlines()
    assert head.split(" | ")[4:] == ["recipe", "1.9", "1.7", "1.5", "all steps", "best loss |"]
    assert line == f"|{' --- |' * 10}"
    assert rows == [ROW]
    # A loss that was no target of a record has no time in it.
    both = records.table([older, record]).splitlines()
    assert [cell.strip() for cell in both[2].split("|")[6:10]] == ["3.0", "–", "–", "–"]
    assert both[3] == ROW.replace("| fast |", "| fast | – |")
