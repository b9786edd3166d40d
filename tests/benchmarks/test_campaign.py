"""The campaign that takes runs of the same code, counts wrong verdicts, and slows a rung."""

import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import noisy_runs
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks import campaign, kernels, ladders
from benchmarks.harness.analysis import FASTER, SLOWER
from benchmarks.harness.figures import figures
from benchmarks.ladders import Call
from benchmarks.worker import slowed

Result = dict[str, Any]


def runs(count: int, seed: int = 0, **slow: float) -> list[Result]:
    """Return runs on an idle machine. slow: factors of the times of rungs in the first case."""
    rng, factors = np.random.default_rng(seed), {(0, rung): each for rung, each in slow.items()}
    return [
        json.loads(json.dumps(figures(noisy_runs.run(rng, noisy_runs.idle, slowed=factors))))
        for _ in range(count)
    ]


SAME = runs(4)


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200, record=True)


def test_verdicts_of_quiet_and_busy_runs_are_counted_by_row(console: Console) -> None:
    unresolved = runs(2)
    unresolved[0]["cases"][0]["rows"][1]["unresolved"] = "too few rounds"
    assert campaign.show_verdicts({0: SAME, 2: unresolved}, console)
    said = console.export_text()
    assert "softmax forward shape0 blocked, ours" in said
    (blocked,) = (line for line in said.splitlines() if "shape0 blocked" in line)
    assert blocked.split()[-3:] == ["4▲", "1▲", "1?"]
    assert "0 of " in said


@pytest.mark.parametrize(("row", "word", "right"), [(1, SLOWER, False), (9, SLOWER, False),
                                                    (1, FASTER, True)])  # fmt: skip
def test_a_verdict_on_the_other_side_of_the_quiet_median_is_wrong(
    row: int, word: str, right: bool, console: Console
) -> None:
    busy = runs(1)
    busy[0]["cases"][0]["rows"][row]["verdict"] = word
    assert campaign.show_verdicts({0: SAME, 1: busy}, console) == right
    assert ("WRONG" in console.export_text()) != right


def test_a_gain_is_wrong_if_the_quiet_median_is_a_loss(console: Console) -> None:
    quiet, busy = runs(1), runs(1)
    quiet[0]["cases"][0]["rows"][1]["gain"][0] = 0.9
    quiet[0]["cases"][0]["rows"][1]["verdict"] = SLOWER
    assert not campaign.show_verdicts({0: quiet, 1: busy}, console)
    assert campaign.show_verdicts({0: quiet}, console)


def test_a_difference_between_runs_of_the_same_code_is_an_alarm(console: Console) -> None:
    assert campaign.show_alarms(SAME, console)
    assert not campaign.show_alarms([*SAME[:2], *runs(2, 1, tile=1.5)], console)
    said = console.export_text()
    assert "0 of 4 comparisons of the same code find a difference" in said
    assert "2 and the next differ: softmax forward shape0 tile" in said
    # Once is none, because it is measured again.
    (once,) = runs(1, 1, tile=1.5)
    assert campaign.differences(SAME[0], once, SAME[1]) == {}


def test_a_slowed_rung_must_be_found_and_no_other(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slowed, "RUNG", "tile")
    all_cases = {(number, "tile"): 1.3 for number in range(4)}
    rng = np.random.default_rng(2)
    slow = [figures(noisy_runs.run(rng, noisy_runs.idle, slowed=all_cases)) for _ in range(2)]
    assert campaign.show_detection(0, SAME, slow, console)
    assert not campaign.show_detection(0, SAME, SAME[:2], console)
    slow[0]["cases"][1]["rows"][4]["steady"][:3] = [1.0, 1.0, 1.0]
    slow[1]["cases"][1]["rows"][4]["steady"][:3] = [1.0, 1.0, 1.0]
    assert not campaign.show_detection(0, SAME, slow, console)
    said = console.export_text()
    assert "0 busy: 16 of 16 slowed rungs are found, and 0 others" in said
    assert "0 of 16 slowed rungs are found" in said
    assert "and 4 others softmax forward shape1 wide" in said


def test_a_campaign_takes_the_runs_that_its_folder_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str | None] = []

    def run(plan: kernels.Plan, path: None, benchmark: str) -> Result:
        taken.append(plan.ladders)
        return {"benchmark": benchmark, **SAME[len(taken) % 4], "complete": len(taken) != 4}

    monkeypatch.setattr(kernels, "run", run)
    shown: list[Any] = []
    monkeypatch.setattr(campaign, "show", lambda *found: shown.append(found) or len(shown) > 1)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType, reportUnknownMemberType]
    assert not campaign.run(tmp_path / "new", 3, 0, 6)  # The fourth run was stopped.
    assert taken == [None, None, None, slowed.__name__]
    for busy, code in ((0, 1), (1, 0)):
        with pytest.raises(SystemExit, match=f"^{code}$"):
            command.main(["verdicts", str(tmp_path / "new"), "--runs", "3", "--busy", str(busy)])
    assert len(taken) == 4 + 2 + 5
    same, of_slowed, _ = shown[-1]
    assert {busy: len(each) for busy, each in same.items()} == {0: 3, 1: 3}
    assert {busy: len(each) for busy, each in of_slowed.items()} == {0: 2, 1: 2}


def test_a_folder_with_something_else_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "1-busy-same-01.json"
    path.write_text("{}")
    for given, line in (
        (path, f"must be a folder, not the file {path}"),
        (tmp_path, f"{path} is no result of python -m benchmarks verdicts"),
    ):
        with pytest.raises(SystemExit, match="2"):
            command.main(["verdicts", str(given)])
        assert capsys.readouterr().err.endswith(f"argument FOLDER: {line}\n")


def test_busy_processes_run_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    real = campaign.subprocess.Popen

    def start(*arguments: Any) -> Any:
        started.append(real(*arguments))
        return started[-1]

    monkeypatch.setattr(campaign.subprocess, "Popen", start)
    with campaign.processes(2):
        assert [each.poll() for each in started] == [None, None]
    assert [each.poll() for each in started] == [-9, -9]


def test_a_slowed_rung_computes_the_first_rows_twice_and_is_right() -> None:
    before, after = (
        {rung.name: rung for rung in each} for each in (
            ladders.rungs(slowed.OPERATION), slowed.rungs(slowed.OPERATION))
    )  # fmt: skip
    changed = [name for name in before if before[name] is not after[name]]
    assert changed == [slowed.RUNG]
    x = np.random.default_rng(0).standard_normal((10, 7), np.float32)
    rows: list[int] = []

    def count(x: np.ndarray, probs: np.ndarray) -> None:
        rows.append(len(x))

    with ThreadPoolExecutor(1) as pool:
        call = Call({}, {"x": x}, {"probs": np.empty_like(x)}, 1, pool)
        step: Callable[[], Any] = slowed.slowed(ladders.direct(count)).prepare(call)
        step()
    assert rows == [10, 3]
    assert [rung.name for rung in slowed.rungs("gelu")] == [r.name for r in ladders.rungs("gelu")]
