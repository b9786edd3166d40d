"""Warnings before training, and the speed that is shown."""

import math
import os
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from helpers.thread_ranks import on_ranks
from helpers.tiny_run import CONFIG, LETTERS

from tinygpt_np import config, machine
from tinygpt_np.text import dataset
from tinygpt_np.text.corpus import Corpus
from tinygpt_np.text.dataset import Dataset
from tinygpt_np.training import report
from tinygpt_np.training.ranks.group import Group
from tinygpt_np.training.trainer import Trainer

SMALL = replace(CONFIG, backend="numpy", n_layer=1, n_embd=2, dropout=0.0, bias=False)


def warnings_of(run: Path, text: str, **settings: Any) -> list[str]:
    data = dataset.from_corpus(Corpus("text", text))
    return list(report.warnings(Trainer(run, replace(SMALL, **settings), data)))


def test_a_small_text_is_warned_about(tmp_path: Path) -> None:
    found = warnings_of(tmp_path / "run", LETTERS + "Q", max_iters=500, n_embd=24)
    passes, size, decay, unseen = found
    assert passes.startswith("the text is read 17 times: the model may memorise it")
    assert size.startswith("there are more parameters (")
    assert decay.endswith("(at --lr-decay-iters 10) and stays there until step 500")
    assert unseen.endswith("never in training: 'Q'")


def test_what_is_not_as_in_gpt2_is_shown_in_flags(tmp_path: Path) -> None:
    data = dataset.from_corpus(Corpus("text", LETTERS * 5))
    plain = Trainer(tmp_path / "run", SMALL, data)
    modern = Trainer(tmp_path / "run", replace(
        SMALL, norm="rms_norm", positions="rotary_pairs", qk_norm=True, activation="swiglu",
        n_embd=4, n_head=2, n_kv_head=1, tied_head=False, logit_soft_cap=15.0, optimizer="muon",
    ), data)  # fmt: skip
    expected = (
        "--n-kv-head 1 --norm rms_norm --positions rotary_pairs --qk-norm --activation swiglu "
        "--no-tied-head --logit-soft-cap 15.0 --optimizer muon"
    )
    for facts in (report.before_training, report.before_evaluation):
        assert "unlike GPT-2" not in dict(facts(plain))
        assert dict(facts(modern))["unlike GPT-2"] == expected


def test_the_evaluated_part_is_shown_with_the_bits_of_its_own_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dataset, "bits_per_character", lambda self, loss: float(len(self.val)))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType, reportUnknownMemberType]
    data = dataset.from_corpus(Corpus("text", LETTERS * 50))
    for count, bits, part in (
        (1200, 1201, "over the first 1,200 of 4,000 tokens of the split"),
        (3999, 4000, "over the whole split"),
        (0, 4000, "over the whole split"),
    ):
        trainer = Trainer(tmp_path / "run", replace(SMALL, eval_tokens=count), data)
        shown = dict(report.after_training(trainer, 1.5))["validation"]
        assert shown == f"1.5000 nats per character, {bits}.0000 bits per character, {part}"


def test_a_loss_of_a_part_of_the_split_is_not_compared_with_the_expected_band(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(config.PRESETS, "small", SMALL)
    monkeypatch.setattr(config, "MEASURED", {("small", "text"): (1.4, 1.5, 1.6)})
    data = dataset.from_corpus(Corpus("text", LETTERS * 50))
    verdicts = [
        dict(report.after_training(Trainer(tmp_path / "run", settings, data), 1.5)).get("", "none")
        for settings in (SMALL, replace(SMALL, eval_tokens=1200))
    ]
    assert verdicts[0].startswith("within the expected band")
    assert verdicts[1] == "none"


@pytest.mark.parametrize(
    ("cores", "threads", "is_noted"), [(64, 0, True), (2, 0, False), (64, 1, False)]
)
def test_ranks_that_are_bound_to_few_cores_are_noted(
    cores: int, threads: int, is_noted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(machine, "cpu_quota", Mock(return_value=math.inf))
    data = dataset.from_corpus(Corpus("text", LETTERS * 5))
    settings = replace(SMALL, gradient_accumulation_steps=2, threads=threads)

    def facts(group: Group) -> dict[str, str]:
        return dict(report.ranks(Trainer(tmp_path / "run", settings, data, group=group), 1))

    for found in on_ranks(2, facts):
        assert found["rank 1"].startswith("on here, 1 thread: ")
        assert ("may use one of " in found.get("note", "")) == is_noted


DECAYED = "decayed to --min-lr (at --lr-decay-iters"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"lr_decay_iters": 9}, f"has {DECAYED} 9) and stays there until step 10"),
        ({"lr_decay_iters": 11}, f"ends at step 10, before the learning rate has {DECAYED} 11)"),
        ({"warmup_iters": 11, "min_lr": 1e-3}, "during the warm-up (--warmup-iters 11)"),
        ({"warmup_iters": 10}, None),
        # A constant learning rate does not decay.
        *(({"lr_decay_iters": iters, "min_lr": 1e-3}, None) for iters in (9, 11)),
    ],
)
def test_a_schedule_that_does_not_end_with_training_is_warned_about(
    tmp_path: Path, settings: dict[str, Any], expected: str | None
) -> None:
    found = warnings_of(tmp_path / "run", LETTERS * 5, **settings)
    assert len(found) == (expected is not None)
    assert expected is None or expected in found[0]


def test_the_speed_shown_is_that_of_the_median_step(tmp_path: Path) -> None:
    data = dataset.from_corpus(Corpus("text", LETTERS))
    trainer = Trainer.start(tmp_path / "run", SMALL, data)
    row = trainer.advance()
    trainer.step_seconds = deque([0.001, 2.0, 100.0])
    shown = report.progress(trainer, row, 1.25)
    assert f"  val 1.250  {SMALL.tokens_per_step / 2:,.0f} tokens/s  " in shown
