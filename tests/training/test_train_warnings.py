"""Warnings before training starts: data or a schedule that fits badly."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tinygpt_np.config import TrainConfig
from tinygpt_np.text import dataset
from tinygpt_np.text.corpus import Corpus
from tinygpt_np.training import trainer
from tinygpt_np.training.trainer import Trainer

TEXT = "".join(chr(97 + i * i % 13) + " .\n"[i % 3] for i in range(400))
CONFIG = TrainConfig(
    block_size=8,
    n_layer=2,
    n_head=2,
    n_embd=12,
    batch_size=3,
    max_iters=10,
    lr_decay_iters=10,
    warmup_iters=2,
)


def test_warnings_name_what_fits_badly(tmp_path: Path) -> None:
    config = replace(CONFIG, max_iters=500, n_embd=24)
    corpus = dataset.from_corpus(Corpus("odd", TEXT + "Q"))
    found = " / ".join(trainer.warnings(Trainer.start(tmp_path / "run", config, corpus)))
    assert "the text is read 17 times" in found
    assert "more parameters" in found
    assert re.search(
        "decayed to --min-lr \\(at --lr-decay-iters 10\\) and stays there until step 500", found
    )
    assert "'Q'" in found


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        ({"lr_decay_iters": 9}, "has decayed to --min-lr (at --lr-decay-iters 9) and stays there"),
        (
            {"lr_decay_iters": 11},
            "before the learning rate has decayed to --min-lr (at --lr-decay-iters 11)",
        ),
        ({"lr_decay_iters": 10}, None),
        ({"warmup_iters": 10}, None),
        (
            {"warmup_iters": 11, "min_lr": 1e-3},
            "training ends at step 10, during the warm-up (--warmup-iters 11)",
        ),
        ({"lr_decay_iters": 11, "min_lr": 1e-3}, None),  # A constant rate has no end of decay.
    ],
)
def test_a_note_says_where_decay_and_training_end_at_different_steps(
    tmp_path: Path, settings: dict[str, Any], note: str | None
) -> None:
    config = replace(CONFIG, n_layer=1, n_embd=2, **settings)
    corpus = dataset.from_corpus(Corpus("long", TEXT * 5))
    found = list(trainer.warnings(Trainer.start(tmp_path / "run", config, corpus)))
    assert len(found) == (note is not None)
    assert note is None or note in found[0]
