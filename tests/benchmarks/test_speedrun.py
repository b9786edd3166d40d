"""The speedrun: times to a loss, candidates, turns, and what is shown and kept."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_run import TEXT
from rich.console import Console

from benchmarks import records, speedrun
from benchmarks.experiments import Entry
from benchmarks.models import tinygpt
from benchmarks.speedrun import seconds_to
from tinygpt_np.config import PRESETS

LOSSES = [3.0, 2.5, 2.0, 1.8]


# Times


def test_the_time_to_a_loss_is_linear_between_two_evaluations() -> None:
    seconds = [10.0, 20.0, 40.0, 80.0]
    assert seconds_to(2.25, seconds, LOSSES) == pytest.approx(30.0)
    assert seconds_to(1.95, seconds, LOSSES) == pytest.approx(50.0)
    assert seconds_to(2.0, seconds, LOSSES) == 40.0
    assert seconds_to(1.8, seconds, LOSSES) == 80.0
    assert seconds_to(1.79, seconds, LOSSES) is None


def test_no_loss_is_reached_before_the_first_evaluation_and_the_first_time_counts() -> None:
    assert seconds_to(3.5, [10.0, 20.0], [3.0, 2.5]) == 10.0
    assert seconds_to(2.2, [1.0, 2.0, 3.0, 4.0], [3.0, 2.0, 2.9, 1.0]) == pytest.approx(1.8)
    assert seconds_to(2.2, [], []) is None


# Candidates


def test_recipes_are_trained_as_they_are_on_the_data_threads_and_seed_that_are_given() -> None:
    ours, eager, compiled = speedrun.entries_of(["smoke", "PyTorch", "torch.compile"], "a", 5, 3)
    free: dict[str, Any] = {"data": "a", "seed": 5, "threads": 3}
    assert (ours.name, ours.by, eager.by) == ("smoke", "ours", "torch")
    assert ours.options["config"] == asdict(replace(PRESETS["smoke"], **free))
    for entry, expected in ((eager, False), (compiled, True)):
        config = asdict(replace(PRESETS["cpu"], **free))
        assert entry.options == {"config": config, "compiled": expected}


def test_recipes_predict_characters_and_start_from_random_weights() -> None:
    assert {"cpu", "smoke", "lecture-small"} <= {*speedrun.RECIPES}
    assert not {"gpt2-124m", "finetune-shakespeare"} & {*speedrun.RECIPES}
    assert {*speedrun.DEFAULT} <= {*speedrun.RECIPES, *speedrun.PEERS}


# Whole runs of toys


@pytest.fixture
def toy_runs(
    toys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, dict[str, Any]]:
    """Let recipes be toys with these options, and the file of records be empty."""
    monkeypatch.setattr(records, "PATH", tmp_path / "records.json")
    records.PATH.write_text('{"benchmark": "speedrun", "records": []}')
    options: dict[str, dict[str, Any]] = {"cpu": {"losses": LOSSES}, "PyTorch": {"losses": LOSSES}}

    def entries(names: list[str], data: str, seed: int, threads: int) -> Iterator[Entry]:
        for name in names:
            by = "ours" if name == "cpu" else "numpy"  # It is installed.
            yield Entry(name, "helpers.toy_jobs:run", options[name], by=by)

    monkeypatch.setattr(speedrun, "entries_of", entries)
    monkeypatch.setenv("COLUMNS", "200")
    return options


def run(path: Path | None = None, **asked: Any) -> bool:
    usual: dict[str, Any] = {
        "recipes": ["cpu", "PyTorch"], "target": [2.25, 1.9, 1.7], "seeds": [1, 2, 2],
        "evaluations": 4, "data": "some text", "threads": 1, "quick": False, "record": False,
    }  # fmt: skip
    return speedrun.run(**usual | asked, json=path)


@pytest.mark.slow  # Several processes.
def test_all_recipes_train_to_the_end_with_every_seed(
    tmp_path: Path, toy_runs: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "all.json")
    found = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert found["complete"]
    assert [(each["recipe"], each["seed"]) for each in found["curves"]] == [
        ("cpu", 1), ("PyTorch", 1), ("cpu", 2), ("PyTorch", 2),
    ]  # fmt: skip
    for each in found["curves"]:
        assert (each["losses"], each["complete"], each["steps"]) == (LOSSES, True, 8)
        assert 8e-3 < each["seconds"][-1] < 1  # All steps; a step takes 1 ms.
        assert each["seconds"] == sorted(each["seconds"])
    ours = found["results"]["cpu"]
    assert ours["seeds"] == [1, 2]
    assert [len(times) for times in ours["times"].values()] == [2, 2, 2]
    assert ours["times"]["1.7"] == [None, None]
    shown = capsys.readouterr().out
    assert shown.count("never") == 2
    assert "to 2.25, PyTorch takes " in shown
    assert "to 1.7, PyTorch" not in shown
    assert records.read(records.PATH) == []


@pytest.mark.slow
@pytest.mark.parametrize("interrupted", ["cpu", "PyTorch"])  # One has had its fourth turn.
def test_ctrl_c_keeps_the_complete_turns_and_records_nothing(
    interrupted: str, tmp_path: Path, toy_runs: dict[str, dict[str, Any]]
) -> None:
    toy_runs[interrupted]["interrupts_at"] = 4
    assert not run(tmp_path / "all.json", record=True)
    found = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert not found["complete"]
    assert [(each["losses"], each["complete"]) for each in found["curves"]] == [
        (LOSSES[:3], False)
    ] * 2
    ours = found["results"]["cpu"]
    assert (ours["seeds"], ours["times"]["1.9"], ours["complete"]) == ([1], [None], [False])
    assert ours["times"]["2.25"][0] > 0
    assert records.read(records.PATH) == []


@pytest.mark.slow
def test_a_peer_that_fails_says_why_and_the_others_go_on(
    toy_runs: dict[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    toy_runs["PyTorch"]["fails_at"] = 3
    assert run(seeds=[1])
    shown = capsys.readouterr().out
    assert "FAILED: PyTorch: ArithmeticError: the toy is broken" in shown
    assert "to 2.25, PyTorch" not in shown


@pytest.mark.slow
def test_quick_takes_the_first_turns_of_one_seed(tmp_path: Path, toy_runs: Any) -> None:
    assert run(tmp_path / "all.json", quick=True, target=None)
    found = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert [(each["seed"], each["losses"]) for each in found["curves"]] == [(1, LOSSES[:2])] * 2
    assert found["results"]["cpu"]["complete"] == [False]
    assert set(found["results"]["cpu"]["times"]) == {"3", "2.7"}


@pytest.mark.slow
def test_a_complete_run_is_recorded_if_asked(
    toy_runs: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(record=True)
    (record,) = records.read(records.PATH)
    assert [row["recipe"] for row in record["recipes"]] == ["cpu", "PyTorch"]
    assert record["seeds"] == [1, 2]
    assert records.table([record]) in capsys.readouterr().out


@pytest.mark.slow
def test_a_recipe_of_ours_learns_in_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, path = tmp_path / "text.txt", tmp_path / "all.json"
    text.write_text(TEXT, encoding="utf-8")
    recipe = replace(PRESETS["smoke"], n_layer=1, block_size=8, max_iters=30, lr_decay_iters=30)
    monkeypatch.setitem(speedrun.RECIPES, "tiny", recipe)
    assert run(path, recipes=["tiny"], seeds=[1, 2], evaluations=3, data=str(text), target=[2.5])
    curves = json.loads(path.read_text(encoding="utf-8"))["curves"]
    first, second = (each["losses"] for each in curves)
    assert first[0] > first[1] > first[2]
    assert first != second
    (again,) = speedrun.entries_of(["tiny"], str(text), 1, 1)
    repeated = tinygpt.run(again.options["config"])
    repeated.train(30)
    assert first[2] == pytest.approx(repeated.evaluate(), rel=1e-3)  # The file has four digits.


# The table


def test_a_recipe_has_its_times_and_a_peer_how_many_times_as_long(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [
        {
            "recipe": name, "by": by, "seed": seed, "complete": True, "steps": 8,
            "warm_up_seconds": 2.0, "seconds": [scale * second for second in (1, 2, 4, 8)],
            "losses": losses,
        }
        for seed, scale in ((1, 1.0), (2, 2.0))
        for name, by, losses in (("cpu", "ours", LOSSES), ("PyTorch", "torch", [3, 2.9, 2.6, 2.2]))
    ]  # fmt: skip
    found = speedrun.summaries(rows, [2.5, 2.0])
    assert found["cpu"]["times"] == {"2.5": [2, 4], "2": [4, 8]}
    assert found["PyTorch"]["times"]["2"] == [None, None]
    assert found["PyTorch"]["best"] == [2.2, 2.2]
    speedrun.show(found, Console(highlight=False, width=200))
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    for expected in (
        ["cpu", "PyTorch"],
        ["to 2.5", "3.0 (2.0–4.0)", "7.5 (5.0–10.0)"],
        ["to 2", "6.0 (4.0–8.0)", "never"],
        ["all steps", "12.0 (8.0–16.0)", "12.0 (8.0–16.0)"],
        ["best loss", "1.800", "2.200"],
        ["warm-up", "2.0", "2.0"],
    ):
        assert expected in cells
    assert ["to 2.5, PyTorch takes 2.50 times as long as cpu"] in cells
    assert ["to 2, PyTorch takes at least 2.00 times as long as cpu"] in cells
