"""A run in batches that are accumulated, in float64, from a model that is there already."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from training.test_trainer import CONFIG, DATA

from tinygpt_np.model.gpt import GPT
from tinygpt_np.storage import checkpoint
from tinygpt_np.training import runs
from tinygpt_np.training import trainer as train
from tinygpt_np.training.metrics import Metrics
from tinygpt_np.training.trainer import Trainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Metrics]]:
    """A run that was never stopped."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    return run, list(Trainer.start(run, CONFIG, DATA))


def test_a_step_of_accumulated_batches_reads_as_many_chunks(tmp_path: Path) -> None:
    config = replace(CONFIG, dropout=0.0, max_iters=3)
    accumulated = replace(config, batch_size=1, gradient_accumulation_steps=3)
    assert accumulated.tokens_per_step == config.tokens_per_step
    ours, theirs = (
        [row.loss for row in Trainer.start(tmp_path / name, each, DATA)][:-1]
        for name, each in (("accumulated", accumulated), ("whole", config))
    )
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_a_run_in_float64_stays_in_float64(tmp_path: Path) -> None:
    config = replace(CONFIG, backend="numpy", dtype="float64", max_iters=2)
    trainer = Trainer.start(tmp_path / "run", config, DATA)
    list(trainer)
    trainer.lock.release()
    found = checkpoint.load_model(runs.last_checkpoint(tmp_path / "run")[0])[1]
    assert {tensor.dtype.name for tensor in found.values()} == {"float64"}
    list(Trainer.resume(tmp_path / "run", replace(config, max_iters=3), DATA))


def test_a_model_that_is_given_is_gone_on_from(tmp_path: Path) -> None:
    model = GPT(CONFIG.gpt(DATA.tokenizer.vocab_size), seed=99, backend="numba")
    before = {name: param.copy() for name, param in model.params.items()}
    trainer = Trainer.start(tmp_path / "run", CONFIG, DATA, model)
    for name, param in trainer.model.params.items():
        np.testing.assert_array_equal(param, before[name])
    stopped = [row.loss for row in islice(trainer, 6)]
    trainer.save()
    trainer.lock.release()
    rest = [row.loss for row in Trainer.resume(tmp_path / "run", CONFIG, DATA)]
    again = GPT(CONFIG.gpt(DATA.tokenizer.vocab_size), seed=99, backend="numba")
    whole = [row.loss for row in Trainer.start(tmp_path / "whole", CONFIG, DATA, again)]
    assert stopped + rest == whole


def test_the_loss_of_a_run_is_said_without_touching_its_folder(
    whole: tuple[Path, list[Metrics]],
) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole[0].rglob("*")}
    trainer = Trainer.at_last_checkpoint(whole[0], CONFIG, DATA)
    assert trainer.evaluate() == whole[1][-1].val_loss
    assert {path: path.stat().st_mtime_ns for path in whole[0].rglob("*")} == before


# The config.json of the first runs.
FIRST = {
    *("block_size", "n_layer", "n_head", "n_embd", "dropout", "bias", "gelu", "data", "seed"),
    *("backend", "batch_size", "max_iters", "learning_rate", "min_lr", "warmup_iters"),
    *("lr_decay_iters", "weight_decay", "beta1", "beta2", "grad_clip", "eval_interval"),
}


def test_an_older_run_that_lacks_new_settings_had_what_is_now_the_default(tmp_path: Path) -> None:
    found = {name: value for name, value in train.asdict(CONFIG).items() if name in FIRST}
    assert len(found) == len(FIRST)
    (tmp_path / runs.CONFIG).write_text(json.dumps(found))
    assert runs.read_config(tmp_path) == CONFIG


def test_a_model_of_another_shape_than_the_run_is_refused(tmp_path: Path) -> None:
    config = CONFIG.gpt(DATA.tokenizer.vocab_size)
    for change in ({"n_layer": 3}, {"dropout": 0.0}, {"block_size": 7}):
        model = GPT(replace(config, **change))
        with pytest.raises(ValueError, match="the model is GPTConfig"):
            Trainer.start(tmp_path / "run", CONFIG, DATA, model)
    assert not (tmp_path / "run").exists()
