"""Tokenizers: as many parameters, as many seconds, and bits that are comparable."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny_run import TEXT
from rich.console import Console

from benchmarks import tokenizers
from benchmarks.tokenizers import Learner
from tinygpt_np.storage.parameters import param_count
from tinygpt_np.text import dataset
from tinygpt_np.text.corpus import Corpus

pytestmark = pytest.mark.slow  # Trains.

DATA = dataset.from_corpus(Corpus("text", TEXT))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(tokenizers.CONFIG, block_size=8, batch_size=2, n_layer=1)
    monkeypatch.setattr(tokenizers, "CONFIG", config)
    monkeypatch.setattr(tokenizers, "PARAMS", 20_000)


@pytest.mark.parametrize("vocab_size", [18, 2000])
def test_models_of_any_vocabulary_have_nearly_as_many_parameters(vocab_size: int) -> None:
    config = tokenizers.fitting(vocab_size)
    step = param_count(replace(config, n_embd=config.n_embd + 4)) - param_count(config)
    assert abs(param_count(config) - 20_000) <= step
    assert config.vocab_size == vocab_size


def test_all_train_for_the_same_seconds_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizers, "TURN", 0.05)
    learners = {name: Learner(DATA, 1, 1) for name in "ab"}
    said: list[str] = []
    tokenizers.take_turns(learners, 0.12, said.append)
    assert [what[0] for what in said] == ["a", "b"] * 3
    for learner in learners.values():
        assert learner.seconds >= 0.12
        assert learner.tokens % 16 == 0
        assert learner.tokens > 0
        assert learner.bits() < math.log2(18)  # It has learned something.


def test_bits_are_those_of_the_whole_validation_split() -> None:
    learner, ids = Learner(DATA, 1, 1), np.asarray(DATA.val)
    total = sum(
        learner.model.loss(ids[None, start : start + 8][:, : len(ids) - 1 - start], targets)
        * targets.size
        for start in range(0, len(ids) - 1, 8)
        for targets in [ids[None, start + 1 : start + 9]]
    )
    assert learner.bits() == pytest.approx(total / (len(ids) - 1) / math.log(2), rel=1e-5)


def test_the_run_is_shown_and_written(
    tmp_path: Path,
    gpt2_files: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "text.txt").write_text(" ".join(map(str, range(9000))), encoding="utf-8")
    monkeypatch.setenv("COLUMNS", "160")
    path = tmp_path / "found.json"
    assert tokenizers.run(str(tmp_path / "text.txt"), str(gpt2_files), 0.1, 2, 1, path)
    results = json.loads(path.read_text())["results"]
    sizes = {kind: (each["vocab_size"], len(each["bits"])) for kind, each in results.items()}
    assert sizes == {"char": (11, 2), "sentencepiece": (1024, 2), "gpt2": (50257, 2)}
    out = capsys.readouterr().out
    assert all(kind in out for kind in results)


def test_the_table_has_medians_and_what_was_read() -> None:
    console = Console(width=160, record=True)
    result: dict[str, Any] = {"vocab_size": 11, "n_embd": 24, "params": 20_123}
    result |= {"characters_per_token": 2.5, "tokens": [1_000_000, 2_000_000, 9_000_000]}
    result["bits"] = [2.0, 1.5, 1.75]
    tokenizers.show({"char": result}, 60.0, console)
    (row,) = (line for line in console.export_text().splitlines() if "char " in line)
    cells = re.split(r" {2,}", row.strip())
    assert cells == [
        "char", "11", "24", "20,123", "2.50", "5.0 million", "1.750 (1.500 to 2.000)",
    ]  # fmt: skip
