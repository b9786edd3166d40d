"""The steps that are timed differ in their updates alone; the shares are those of the ratios."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_run import CONFIG

from benchmarks import update
from benchmarks.harness.analysis import Interval
from benchmarks.models import tinygpt
from tinygpt_np.config import PRESETS
from tinygpt_np.model.gpt import GPT


def test_a_share_is_one_minus_the_time_without_an_update_by_that_of_the_step() -> None:
    ratios = Interval(1.25, 1.0, 2.0, 0.97), Interval(1.0, 0.9, 1.1, 0.97)
    rows = [{}, *({"by_ours": ratio} for ratio in ratios)]
    line = "share of the step: AdamW 20% (0% to 50%), Muon 0% (0% to 9%)"
    assert update.shares({"rows": rows}) == line
    assert update.shares({"rows": [{}, {}, rows[1]]}) == "share of the step: Muon 20% (0% to 50%)"


def test_each_step_updates_by_its_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    models: list[GPT] = []

    def make(*given: object, **named: object) -> GPT:
        models.append(GPT(*given, **named))  # pyright: ignore[reportArgumentType]
        return models[-1]

    monkeypatch.setitem(PRESETS, "tiny", replace(CONFIG, backend="numpy"))
    monkeypatch.setattr(tinygpt, "GPT", make)
    for entry in update.experiment("tiny", 1, 1).entries:
        job = tinygpt.step_by(**entry.options)
        job.step(*job.draw())
    start = GPT(CONFIG.gpt(tinygpt.VOCAB), CONFIG.seed).params
    gradients, adamw, muon = (model.params for model in models)
    for name, param in start.items():
        np.testing.assert_array_equal(gradients[name], param)
        assert (adamw[name] != param).any()
        by_muon = name.startswith("h.") and param.ndim == 2
        assert (muon[name] != adamw[name]).any() == by_muon


@pytest.mark.slow
def test_a_run_is_shown_and_written(
    tmp_path: Path, toys: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PRESETS, "tiny", replace(CONFIG, backend="numpy"))
    path = tmp_path / "all.json"
    assert update.run(["tiny", "tiny"], 1, 2, path)
    written = json.loads(path.read_text(encoding="utf-8"))
    assert (written["benchmark"], written["complete"], len(written["cases"])) == ("update", True, 1)
    assert "share of the step: AdamW" in capsys.readouterr().out
