"""A run: what it writes and refuses, and that after any stop it goes on as if there was none."""

import json
import re
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from helpers.errors import relative_error

from tinygpt_np.config import TrainConfig, generator
from tinygpt_np.model.gpt import GPT
from tinygpt_np.model.optimizer import AdamW, clip, global_norm, learning_rate_at
from tinygpt_np.storage import checkpoint, files
from tinygpt_np.storage.checkpoint import CheckpointError
from tinygpt_np.text import corpus, dataset
from tinygpt_np.text.corpus import Corpus
from tinygpt_np.training import metrics, runs
from tinygpt_np.training.metrics import Metrics
from tinygpt_np.training.trainer import NotFiniteError, Trainer

TEXT = "".join(chr(97 + i * i % 13) + " .\n"[i % 3] for i in range(400))
DATA = dataset.from_corpus(Corpus("letters", TEXT))
CONFIG = TrainConfig(
    block_size=8, n_layer=2, n_head=2, n_embd=12, dropout=0.25, bias=True,
    batch_size=3, max_iters=10, warmup_iters=2, lr_decay_iters=10, eval_interval=4, seed=5,
)  # fmt: skip


def losses(rows: list[Metrics]) -> list[tuple[int, float | None, float | None]]:
    return [(row.step, row.loss, row.val_loss) for row in rows]


def written(run: Path) -> list[tuple[int, float | None, float | None]]:
    return losses(metrics.read(run))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Metrics]]:
    """A run that was never stopped."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    return run, list(Trainer.start(run, CONFIG, DATA))


def stop_after(run: Path, steps: int) -> Trainer:
    trainer = Trainer.start(run, CONFIG, DATA)
    for _ in islice(trainer, steps):
        pass
    return trainer


def test_every_step_is_recorded_and_the_last_line_is_the_end(
    whole: tuple[Path, list[Metrics]],
) -> None:
    run, rows = whole
    assert [row.step for row in rows] == list(range(11))
    assert written(run) == losses(rows)
    assert [row.step for row in rows if row.val_loss is not None] == [0, 4, 8, 10]
    assert rows[-1].loss is None


def test_the_last_two_checkpoints_are_kept(whole: tuple[Path, list[Metrics]]) -> None:
    found = checkpoint.steps_in(whole[0] / runs.CHECKPOINTS)
    assert [path.name for path in found] == ["000008", "000010"]


def test_the_picture_shows_the_whole_run(whole: tuple[Path, list[Metrics]]) -> None:
    drawn = (whole[0] / metrics.PICTURE).read_text(encoding="utf-8")
    metrics.draw_losses(whole[0])
    again = (whole[0] / metrics.PICTURE).read_text(encoding="utf-8")
    assert re.findall(r'd="M[^"]*"', drawn) == re.findall(r'd="M[^"]*"', again)


def test_two_runs_with_one_seed_are_the_same_bit_for_bit(
    whole: tuple[Path, list[Metrics]], tmp_path: Path
) -> None:
    again = list(Trainer.start(tmp_path / "again", CONFIG, DATA))
    assert losses(again) == losses(whole[1])


def test_another_seed_gives_another_run(whole: tuple[Path, list[Metrics]], tmp_path: Path) -> None:
    trainer = Trainer.start(tmp_path / "run", replace(CONFIG, seed=6), DATA)
    assert next(iter(trainer)).loss != whole[1][0].loss


@pytest.mark.parametrize("steps", [0, 1, 4, 7, 8])
def test_a_run_stopped_after_any_step_and_saved_goes_on_bit_for_bit(
    whole: tuple[Path, list[Metrics]], tmp_path: Path, steps: int
) -> None:
    stop_after(tmp_path / "run", steps).save()
    resumed = Trainer.resume(tmp_path / "run", CONFIG, DATA)
    assert resumed.step == steps
    rest = list(resumed)
    assert losses(rest) == losses(whole[1])[steps:]
    assert written(tmp_path / "run") == losses(whole[1])


@pytest.mark.parametrize(("steps", "at"), [(3, 0), (7, 4), (9, 8)])
def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint_bit_for_bit(
    whole: tuple[Path, list[Metrics]], tmp_path: Path, steps: int, at: int
) -> None:
    stop_after(tmp_path / "run", steps)  # Not saved: what was after the checkpoint is lost.
    with (tmp_path / "run" / metrics.METRICS).open("a") as file:
        file.write('{"step": 99, "lo')  # A line cut short.
    resumed = Trainer.resume(tmp_path / "run", CONFIG, DATA)
    assert resumed.step == at
    list(resumed)
    assert written(tmp_path / "run") == losses(whole[1])
    _, params = checkpoint.load_model(runs.last_checkpoint(whole[0])[0])
    for name, param in params.items():
        np.testing.assert_array_equal(resumed.model.params[name], param)


def test_a_stop_on_a_step_to_be_evaluated_goes_on_with_the_evaluation(tmp_path: Path) -> None:
    stop_after(tmp_path / "run", 4).save()  # Step 4 is due for evaluation, and not yet evaluated.
    first = next(iter(Trainer.resume(tmp_path / "run", CONFIG, DATA)))
    assert first.step == 4
    assert first.val_loss is not None


def test_a_finished_run_goes_on_with_more_steps(
    whole: tuple[Path, list[Metrics]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    list(Trainer.start(run, replace(CONFIG, max_iters=8), DATA))
    list(Trainer.resume(run, CONFIG, DATA))
    assert written(run) == losses(whole[1])
    assert runs.read_config(run).max_iters == CONFIG.max_iters


def test_the_validation_loss_is_the_mean_over_the_whole_split(tmp_path: Path) -> None:
    trainer = Trainer.start(tmp_path / "run", CONFIG, DATA)
    ids, total = trainer.dataset.val, 0.0
    for start in range(0, len(ids) - 1, 8):
        window = ids[start : start + 9]
        total += trainer.model.loss(window[None, :-1], window[None, 1:]) * (len(window) - 1)
    assert trainer.evaluate() == pytest.approx(total / (len(ids) - 1), rel=1e-6)


def test_the_validation_loss_does_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    one = Trainer.start(tmp_path / "one", CONFIG, DATA).evaluate()
    other = Trainer.start(tmp_path / "other", replace(CONFIG, batch_size=7), DATA).evaluate()
    assert one == other


def test_dropout_does_not_move_the_batches(tmp_path: Path) -> None:
    # One generator per purpose: with and without dropout, the same chunks are drawn.
    runs = [Trainer.start(tmp_path / str(p), replace(CONFIG, dropout=p), DATA) for p in (0, 0.5)]
    for trainer in runs:
        list(islice(trainer, 3))
    states = [str(trainer.generators["data"].bit_generator.state) for trainer in runs]
    assert states[0] == states[1]
    assert str(runs[1].generators["dropout"].bit_generator.state) != str(
        runs[0].generators["dropout"].bit_generator.state
    )


def test_a_folder_that_holds_a_run_is_left_alone(whole: tuple[Path, list[Metrics]]) -> None:
    run = whole[0]
    before = contents(run)
    with pytest.raises(CheckpointError, match=f"{run.name} exists already.*--resume"):
        Trainer.start(run, CONFIG, DATA)
    assert contents(run) == before


@pytest.mark.parametrize("text", [TEXT[::-1], TEXT + "Z"], ids=["another", "more letters"])
def test_a_text_that_is_not_that_of_the_run_is_refused(
    whole: tuple[Path, list[Metrics]], text: str
) -> None:
    with pytest.raises(CheckpointError, match=r"was trained on letters .*but other has another"):
        Trainer.resume(whole[0], CONFIG, dataset.from_corpus(Corpus("other", text)))


@pytest.mark.parametrize(("field", "value"), [("n_embd", 24), ("learning_rate", 0.5)])
def test_a_config_that_was_changed_since_is_refused(
    whole: tuple[Path, list[Metrics]], field: str, value: Any
) -> None:
    was, flag = getattr(CONFIG, field), f"--{field.replace('_', '-')}"
    message = f"with {flag} {was}, which cannot be changed; to train with {flag} {value}, start"
    with pytest.raises(CheckpointError, match=message):
        Trainer.resume(whole[0], replace(CONFIG, **{field: value}), DATA)


@pytest.mark.parametrize("content", ["{}", "[]", '{"n_layer": 2}', "nonsense"])
def test_a_config_that_lacks_something_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / runs.CONFIG).write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        runs.read_config(tmp_path)


@pytest.mark.parametrize("change", [{"n_layer": 10**9}, {"batch_size": 10**9}, {"n_embd": 10**21}])
def test_a_run_that_needs_more_memory_than_there_is_is_refused_at_once(
    tmp_path: Path, change: dict[str, int]
) -> None:
    with pytest.raises(
        ValueError, match=r"would take about [\d,]+ MB, and this process can have [\d,]+ MB"
    ):
        Trainer.start(tmp_path / "run", replace(CONFIG, **({"n_head": 1} | change)), DATA)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("backend", "tolerance"), [("numpy", 0), ("numba", 2e-3)])
def test_a_run_takes_the_steps_that_its_configuration_says(
    tmp_path: Path, backend: Literal["numpy", "numba"], tolerance: float
) -> None:
    config = replace(CONFIG, learning_rate=0.05, grad_clip=0.3, weight_decay=0.2, beta1=0.8)
    # Without biases: the gradient of a key's is nothing but rounding, and Adam enlarges it.
    config = replace(config, backend=backend, bias=backend == "numpy")
    trainer = Trainer.start(tmp_path / "run", config, DATA)
    rows = list(trainer)[:-1]
    ids = trainer.dataset.tokenizer.encode(TEXT)
    ids = ids[: int(0.9 * len(ids))]
    model = GPT(config.gpt(trainer.dataset.tokenizer.vocab_size), config.seed)
    optimizer = AdamW(model.params, config.beta1, config.beta2, config.weight_decay)
    data_rng, dropout_rng = (generator(config.seed, purpose) for purpose in ("data", "dropout"))
    norms: list[float] = []
    for row in rows:
        tokens, targets = corpus.random_batch(ids, config.batch_size, config.block_size, data_rng)
        if backend == "numpy":
            masks = model.draw_masks(config.batch_size, config.block_size, dropout_rng)
        else:
            masks = trainer.engine.masks(tokens.shape, trainer.engine.draw(dropout_rng))
        loss, grads = model.loss_and_grads(tokens, targets, masks)
        norms.append(global_norm(grads))
        rate = learning_rate_at(row.step, config)
        assert row.lr == rate
        assert row.loss == pytest.approx(loss, rel=tolerance)
        assert row.grad_norm == pytest.approx(norms[-1], rel=tolerance)
        optimizer.update(model.params, clip(grads, norms[-1], config.grad_clip), rate)
    assert min(norms) > config.grad_clip  # So that clipping was put to the test.
    for name, param in model.params.items():
        assert relative_error(trainer.model.params[name], param) <= tolerance


def contents(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.parametrize("max_iters", [10, 5])
def test_a_finished_run_is_refused_and_left_as_it_is(
    whole: tuple[Path, list[Metrics]], max_iters: int
) -> None:
    before = contents(whole[0])
    with pytest.raises(
        ValueError, match=r"whole has already taken 10 steps; .* give a --max-iters above 10"
    ):
        Trainer.resume(whole[0], replace(CONFIG, max_iters=max_iters), DATA)
    assert contents(whole[0]) == before


def test_a_run_is_not_cut_shorter_than_it_is(tmp_path: Path) -> None:
    stop_after(tmp_path / "run", 7).save()
    before = contents(tmp_path / "run")
    with pytest.raises(ValueError, match=r"run has already taken 7 steps; .* --max-iters above 7"):
        Trainer.resume(tmp_path / "run", replace(CONFIG, max_iters=5), DATA)
    assert contents(tmp_path / "run") == before


def test_a_run_stopped_before_its_last_evaluation_goes_on_to_it(
    whole: tuple[Path, list[Metrics]], tmp_path: Path
) -> None:
    stop_after(tmp_path / "run", 10).save()
    assert losses(list(Trainer.resume(tmp_path / "run", CONFIG, DATA))) == losses(whole[1])[-1:]


def test_a_run_killed_before_its_first_checkpoint_begins_anew(
    whole: tuple[Path, list[Metrics]], tmp_path: Path
) -> None:
    Trainer.start(tmp_path / "run", CONFIG, DATA)
    assert losses(list(Trainer.resume(tmp_path / "run", CONFIG, DATA))) == losses(whole[1])


def test_a_run_is_trained_by_one_at_a_time(tmp_path: Path) -> None:
    trainer = stop_after(tmp_path / "run", 1)
    with pytest.raises(CheckpointError, match="run is being trained by another process"):
        Trainer.resume(tmp_path / "run", CONFIG, DATA)
    with pytest.raises(CheckpointError, match="run is being trained by another process"):
        Trainer.start(tmp_path / "run", CONFIG, DATA)
    trainer.lock.release()
    Trainer.resume(tmp_path / "run", CONFIG, DATA)


def test_a_damaged_checkpoint_tells_the_way_to_the_one_before(
    whole: tuple[Path, list[Metrics]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)
    (run / runs.CHECKPOINTS / "000010" / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"remove .*000010 to go on from .*000008"):
        Trainer.resume(run, CONFIG, DATA)
    shutil.rmtree(run / runs.CHECKPOINTS / "000010")
    assert Trainer.resume(run, CONFIG, DATA).step == 8


def test_an_optimizer_that_does_not_fit_is_named(
    whole: tuple[Path, list[Metrics]], tmp_path: Path
) -> None:
    trainer = Trainer.start(tmp_path / "run", CONFIG, DATA)
    folder, state = runs.last_checkpoint(whole[0])
    del trainer.model.params["wte.weight"]
    with pytest.raises(CheckpointError, match=r"optimizer.safetensors has the tensor first\.wte"):
        trainer.restore(folder, state)


@pytest.fixture
def diverging(tmp_path: Path) -> Trainer:
    config = replace(CONFIG, learning_rate=1e30, warmup_iters=0, grad_clip=0.0)
    return Trainer.start(tmp_path / "run", config, DATA)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_first_bad_tensor(
    diverging: Trainer,
) -> None:
    message = r"at step 1: loss nan.* The first tensor .* is an activation of h\.0\.attn"
    with pytest.raises(NotFiniteError, match=message):
        list(diverging)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("grad_clip", [0.0, 1.0])
def test_a_gradient_too_large_for_adamw_stops_training_unless_it_is_clipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: Any, grad_clip: float
) -> None:
    config = replace(CONFIG, backend=backend, grad_clip=grad_clip, max_iters=1)
    trainer = Trainer.start(tmp_path / "run", config, DATA)
    computed, before = trainer.engine.loss_and_grads, trainer.model.params["ln_f.bias"].copy()

    def large(*args: Any) -> Any:
        loss, grads = computed(*args)
        grads["ln_f.bias"][3] = 1e20
        return loss, grads

    monkeypatch.setattr(trainer.engine, "loss_and_grads", large)
    if grad_clip == 0:
        with pytest.raises(NotFiniteError, match=r"the square of the gradient of ln_f\.bias"):
            list(trainer)
    else:
        list(trainer)
    assert (trainer.model.params["ln_f.bias"] != before)[3] == (grad_clip > 0)


def test_what_is_called_the_last_good_checkpoint_is_good(tmp_path: Path) -> None:
    # Evaluated, and so saved, after the very step that ruins the weights.
    config = replace(CONFIG, learning_rate=1e30, warmup_iters=0, grad_clip=0.0, eval_interval=1)
    run = tmp_path / "run"
    with pytest.raises(NotFiniteError, match=r"last good checkpoint is .*checkpoints.000000"):
        list(Trainer.start(run, config, DATA))
    assert [folder.name for folder in checkpoint.steps_in(run / runs.CHECKPOINTS)] == ["000000"]
    assert all(row.val_loss is None or row.val_loss < 10 for row in metrics.read(run))


def test_a_finite_validation_loss_does_not_hide_what_overflows_on_the_way(tmp_path: Path) -> None:
    # 1e20 squared is infinite in float32, and so are the scores of attention.
    config = replace(CONFIG, learning_rate=1e20, warmup_iters=0, bias=False, eval_interval=1)
    run = tmp_path / "run"
    with pytest.raises(NotFiniteError, match=r"weights that have grown too large.*h\.0\.attn"):
        list(Trainer.start(run, config, DATA))
    assert [folder.name for folder in checkpoint.steps_in(run / runs.CHECKPOINTS)] == ["000000"]


def test_weights_ruined_by_the_last_step_are_not_saved(tmp_path: Path) -> None:
    config = replace(
        CONFIG, learning_rate=1e38, warmup_iters=0, grad_clip=0.0, lr_decay_iters=9, max_iters=1
    )
    with pytest.raises(NotFiniteError, match="at step 1"):
        list(Trainer.start(tmp_path / "run", config, DATA))


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = stop_after(tmp_path / "run", 3)

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync_file", full)
    with pytest.raises(CheckpointError, match="the disk is full"):
        trainer.save()
    monkeypatch.undo()
    trainer.lock.release()
    assert Trainer.resume(tmp_path / "run", CONFIG, DATA).step == 0


def test_a_folder_that_is_no_run_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"n_layers": 3}))
    with pytest.raises(CheckpointError, match="is not the configuration of a training run"):
        runs.read_config(tmp_path)


def test_the_time_left_is_the_pace_times_what_is_left(tmp_path: Path) -> None:
    trainer = Trainer.start(tmp_path / "run", CONFIG, DATA)
    list(islice(trainer, 6))
    trainer.step_seconds.clear()
    trainer.step_seconds.extend([2.0, 3.0, 100.0])
    trainer.evaluation_seconds = 10.0
    # Steps 6 to 9, and the evaluations at 8 and at the end.
    assert trainer.seconds_left() == pytest.approx(4 * 3 + 2 * 10)
