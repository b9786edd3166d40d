"""Tokenizers: as many parameters, as many seconds, and bits that are comparable."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_run import TEXT

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
    untrained = learners["a"].bits()
    said: list[str] = []
    tokenizers.take_turns(learners, 0.12, said.append)
    assert [what[0] for what in said] == ["a", "b"] * 3
    for learner in learners.values():
        assert learner.seconds >= 0.12
        assert learner.tokens % 16 == 0
        assert learner.tokens > 0
        assert learner.bits() != untrained


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
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = {cells[0]: cells[1:] for cells in shown if cells and cells[0] in results}
    for kind, each in results.items():
        (low, high), ratio = sorted(each["bits"]), each["characters_per_token"]
        # The file has four digits of the bits, and the median is that of all digits.
        assert float(rows[kind].pop(6)) == pytest.approx((low + high) / 2, abs=1.1e-3)
        assert rows[kind] == [
            f"{each['vocab_size']:,}", str(each["n_embd"]), f"{each['params']:,}", f"{ratio:.2f}",
            f"{sum(each['tokens']) / 2 * ratio / 1e6:.1f}", "million",
            f"({low:.3f}", "to", f"{high:.3f})",
        ]  # fmt: skip
