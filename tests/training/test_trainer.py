"""A run can be stopped at any time and resumed bit for bit; what it writes, and what it refuses."""

import os
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from unittest.mock import Mock

import numpy as np
import pytest
from helpers.errors import relative_error
from helpers.small_gpts import assert_same_bits
from helpers.tiny_run import CONFIG, DATA, LETTERS

from tinygpt_np.config import TrainConfig, generator
from tinygpt_np.model.gpt import GPT
from tinygpt_np.model.optimizer import AdamW, clip, global_norm, learning_rate_at
from tinygpt_np.storage import checkpoint, files
from tinygpt_np.storage.checkpoint import CheckpointError
from tinygpt_np.text import batches, dataset
from tinygpt_np.text.corpus import Corpus
from tinygpt_np.training import metrics, runs, trainer
from tinygpt_np.training.metrics import Metrics
from tinygpt_np.training.trainer import NotFiniteError, Trainer

Backend = Literal["numpy", "numba"]
NUMPY = replace(CONFIG, backend="numpy", dropout=0.0, n_layer=1)
LONG = dataset.from_corpus(Corpus("letters", LETTERS * 10))
DIVERGING = replace(CONFIG, learning_rate=1e30, warmup_iters=0, grad_clip=0.0)


def losses(rows: list[Metrics]) -> list[tuple[int, float | None, float | None]]:
    return [(row.step, row.loss, row.val_loss) for row in rows]


def written(run: Path) -> list[tuple[int, float | None, float | None]]:
    return losses(metrics.read(run))


def contents(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def steps(run: Path) -> list[int]:
    return [int(folder.name) for folder in checkpoint.steps_in(run / runs.CHECKPOINTS)]


def best(run: Path) -> Path:
    return run / runs.CHECKPOINTS / checkpoint.BEST


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that was never stopped."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    assert losses(list(Trainer.start(run, CONFIG, DATA))) == written(run)
    return run


def stop_after(run: Path, steps: int) -> Trainer:
    trainer = Trainer.start(run, CONFIG, DATA)
    for _ in islice(trainer, steps):
        pass
    return trainer


# Steps


def test_every_step_is_recorded_and_the_last_line_has_only_a_validation_loss(run: Path) -> None:
    rows = metrics.read(run)
    assert [row.step for row in rows] == list(range(11))
    assert [row.step for row in rows if row.val_loss is not None] == [0, 4, 8, 10]
    assert [row.step for row in rows if row.loss is None] == [10]
    assert steps(run) == [8, 10]


@pytest.mark.parametrize(("backend", "tolerance"), [("numpy", 0), ("numba", 2e-3)])
@pytest.mark.parametrize("order", ["random", "epochs"])
def test_the_steps_are_those_of_the_configuration(
    tmp_path: Path, backend: Backend, tolerance: float, order: str
) -> None:
    config = replace(CONFIG, learning_rate=0.05, grad_clip=0.3, weight_decay=0.2, beta1=0.8)
    config = replace(config, data_order=order)
    if backend == "numba":
        config = replace(config, batch_size=1, gradient_accumulation_steps=3)
    # The gradient of a key's bias is only rounding, which Adam would enlarge.
    config = replace(config, backend=backend, bias=backend == "numpy")
    trainer = Trainer.start(tmp_path / "run", config, DATA)
    rows = list(trainer)[:-1]
    ids = DATA.tokenizer.encode(LETTERS)
    ids = ids[: int(0.9 * len(ids))]
    model = GPT(config.gpt(trainer.dataset.tokenizer.vocab_size), config.seed)
    optimizer = AdamW(model.params, config.beta1, config.beta2, config.weight_decay)
    data_rng, dropout_rng = (generator(config.seed, purpose) for purpose in ("data", "dropout"))
    norms: list[float] = []
    for row in rows:
        tokens, targets = batches.random_batch(ids, 3, config.block_size, data_rng)
        if order == "epochs":
            starts = batches.Epochs(ids, config).starts_of_step(row.step)
            tokens, targets = batches.cut(ids, starts, config.block_size)
        masks = trainer.engine.masks(tokens.shape, trainer.engine.draw(dropout_rng))
        loss, grads = model.loss_and_grads(tokens, targets, masks)
        norms.append(global_norm(grads))
        rate = learning_rate_at(row.step, config)
        assert row.lr == rate
        assert row.loss == pytest.approx(loss, rel=tolerance)
        assert row.grad_norm == pytest.approx(norms[-1], rel=tolerance)
        optimizer.update(model.params, clip(grads, norms[-1], config.grad_clip), rate)
    assert min(norms) > config.grad_clip  # Every step is clipped.
    for name, param in model.params.items():
        assert relative_error(trainer.model.params[name], param) <= tolerance


def test_the_speed_and_the_time_left_are_those_of_steps_and_evaluations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(NUMPY, gradient_accumulation_steps=2)
    run = Trainer.start(tmp_path / "run", config, DATA)
    list(islice(run, 4))
    run.step_seconds.clear()
    clock = iter([100.0, 102.0, 200.0, 203.0])
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    rows = [run.advance(), run.advance()]
    assert [row.tokens_per_second for row in rows] == [8 * 3 * 2 / 2, 8 * 3 * 2 / 3]
    run.step_seconds.append(100.0)
    run.evaluation_seconds = 10.0
    # Steps 6 to 9 at the median, and the evaluations at 8 and 10.
    assert run.seconds_left() == pytest.approx(4 * 3 + 2 * 10)


@pytest.mark.parametrize(
    ("step", "evaluation", "expected"),
    [
        (5, 20.0, 3 + (2 + 1)),
        (8, 20.0, 20 + (2 + 1) + 3 + (2 + 1)),
        (8, 0.0, 10 * 3 + (2 + 1) + 3 + (2 + 1)),  # Not timed: as long as training on 10 batches.
        (10, 20.0, 20 + (2 + 1)),
    ],
)
def test_the_next_save_is_after_an_evaluation_that_is_due_and_a_step(
    tmp_path: Path, step: int, evaluation: float, expected: float
) -> None:
    run = Trainer(tmp_path / "run", replace(NUMPY, eval_tokens=10 * 8 * 3 - 1), LONG)
    run.step, run.evaluation_seconds, run.save_seconds, run.plot_seconds = (
        step,
        evaluation,
        2.0,
        1.0,
    )
    run.step_seconds.extend([1.0, 3.0, 100.0])
    assert run.seconds_to_next_save() == pytest.approx(expected)


def test_saves_and_plots_are_timed_and_on_resuming_a_save_counts_as_twice_the_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = stop_after(tmp_path / "run", 1)
    clock = iter([100.0, 103.5, 110.0, 111.5, 200.0, 204.0])
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    stopped.save()
    stopped.plot()
    assert (stopped.save_seconds, stopped.plot_seconds) == (3.5, 1.5)
    stopped.lock.release()
    assert Trainer.resume(tmp_path / "run", CONFIG, DATA).save_seconds == 2 * 4.0


@pytest.mark.parametrize("count", [1, 13, len(DATA.val) - 2])
def test_eval_tokens_are_the_first_targets_of_the_validation_split(
    tmp_path: Path, count: int
) -> None:
    run = Trainer(tmp_path / "run", replace(NUMPY, eval_tokens=count), DATA)
    tokens = DATA.val[: count + 1].astype(np.int64)
    total = 0.0
    for start in range(0, count, 8):
        end = min(start + 8, count)
        part = run.model.loss(tokens[None, start:end], tokens[None, start + 1 : end + 1])
        total += part * (end - start)
    assert run.evaluate() == pytest.approx(total / count, rel=1e-6)


def test_a_split_that_is_shorter_than_eval_tokens_is_evaluated_whole(tmp_path: Path) -> None:
    whole = Trainer(tmp_path / "run", NUMPY, DATA).evaluate()
    for count in (len(DATA.val) - 1, 10**12):
        run = Trainer(tmp_path / "run", replace(NUMPY, eval_tokens=count), DATA)
        assert run.evaluate() == whole


def test_the_evaluated_part_is_a_view_of_a_split_that_may_be_mapped(tmp_path: Path) -> None:
    run = Trainer(tmp_path / "run", replace(NUMPY, eval_tokens=13), DATA)
    assert np.shares_memory(run.val, DATA.val)


# Stop and resume


@pytest.mark.parametrize(
    ("steps", "saved", "start"), [(7, True, 7), (10, True, 10), (0, False, 0), (7, False, 4)]
)
def test_a_run_that_is_saved_or_killed_after_any_step_resumes_bit_for_bit(
    run: Path, tmp_path: Path, steps: int, saved: bool, start: int
) -> None:
    stopped = stop_after(tmp_path / "run", steps)
    if saved:
        stopped.save()
    else:
        with (tmp_path / "run" / metrics.METRICS).open("a") as file:
            file.write('{"step": 99, "lo')  # An incomplete line.
    stopped.lock.release()
    resumed = Trainer.resume(tmp_path / "run", CONFIG, DATA)
    assert resumed.step == start
    assert losses(list(resumed)) == written(run)[start:]
    assert written(tmp_path / "run") == written(run)
    _, params = checkpoint.load_model(runs.last_checkpoint(run)[0])
    assert_same_bits(resumed.model.params, params)


@pytest.mark.parametrize("step", [8, 10])
def test_a_checkpoint_that_was_saved_before_its_evaluation_gets_the_loss_on_resuming(
    run: Path, tmp_path: Path, step: int
) -> None:
    stopped = stop_after(tmp_path / "run", step)
    stopped.save()
    stopped.lock.release()
    list(Trainer.resume(tmp_path / "run", CONFIG, DATA))
    for name in ("000008", "000010"):
        found, expected = (
            checkpoint.load_state(each / runs.CHECKPOINTS / name)
            for each in (tmp_path / "run", run)
        )
        assert found.val_loss == expected.val_loss is not None


def test_resuming_does_not_write_the_checkpoint_again(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run", symlinks=True)
    shutil.rmtree(copy / runs.CHECKPOINTS / "000010")
    weights = copy / runs.CHECKPOINTS / "000008" / checkpoint.MODEL
    before = weights.stat().st_mtime_ns
    list(Trainer.resume(copy, CONFIG, DATA))
    assert weights.stat().st_mtime_ns == before


MUON = replace(CONFIG, optimizer="muon", data_order="epochs")


def test_a_given_model_is_resumed_with_the_parameters_of_the_checkpoint(tmp_path: Path) -> None:
    stopped = stop_after(tmp_path / "run", 4)
    stopped.save()
    stopped.lock.release()
    given = GPT(CONFIG.gpt(DATA.tokenizer.vocab_size), seed=99)
    resumed = Trainer.resume(tmp_path / "run", CONFIG, DATA, given)
    assert resumed.model is given
    assert_same_bits(given.params, stopped.model.params)


@pytest.mark.parametrize("config", [MUON, replace(MUON, backend="numpy", dtype="float64")])
def test_a_run_by_muon_in_epochs_resumes_bit_for_bit(tmp_path: Path, config: TrainConfig) -> None:
    expected = Trainer.start(tmp_path / "run", config, DATA)
    rows = list(expected)
    stopped = Trainer.start(tmp_path / "stopped", config, DATA)
    list(islice(stopped, 7))
    stopped.save()
    stopped.lock.release()
    resumed = Trainer.resume(tmp_path / "stopped", config, DATA)
    assert losses(list(resumed)) == losses(rows)[7:]
    assert_same_bits(resumed.model.params, expected.model.params)


def test_a_finished_run_can_be_extended(run: Path, tmp_path: Path) -> None:
    list(Trainer.start(tmp_path / "run", replace(CONFIG, max_iters=8), DATA))
    list(Trainer.resume(tmp_path / "run", CONFIG, DATA))
    assert written(tmp_path / "run") == written(run)
    assert runs.read_config(tmp_path / "run").max_iters == CONFIG.max_iters


def test_a_model_of_another_shape_than_the_run_is_refused(tmp_path: Path) -> None:
    model = GPT(replace(CONFIG.gpt(DATA.tokenizer.vocab_size), dropout=0.0))
    with pytest.raises(ValueError, match="the model is GPTConfig"):
        Trainer.start(tmp_path / "run", CONFIG, DATA, model)
    assert not (tmp_path / "run").exists()


def test_a_run_in_float64_stays_in_float64(tmp_path: Path) -> None:
    config = replace(NUMPY, dtype="float64", max_iters=2)
    list(Trainer.start(tmp_path / "run", config, DATA))
    found = checkpoint.load_model(runs.last_checkpoint(tmp_path / "run")[0])[1]
    assert {tensor.dtype.name for tensor in found.values()} == {"float64"}
    list(Trainer.resume(tmp_path / "run", replace(config, max_iters=3), DATA))


OTHER = dataset.from_corpus(Corpus("other", LETTERS[::-1]))


@pytest.mark.parametrize(
    ("config", "data", "message"),
    [
        (CONFIG, OTHER, r"was trained on letters .*but other has another"),
        (CONFIG, DATA, r"finished has already taken 10 steps; .* give a --max-iters above 10"),
        (replace(CONFIG, max_iters=5), DATA, "already taken 10 steps"),
        (replace(CONFIG, seed=6), DATA, "was trained with --seed 5, which cannot be changed"),
        (
            replace(CONFIG, optimizer="muon"),
            DATA,
            "with --optimizer adamw, which cannot be changed",
        ),
    ],
)
def test_resuming_with_other_data_or_settings_or_without_remaining_steps_is_refused(
    run: Path, config: TrainConfig, data: Any, message: str
) -> None:
    before = contents(run)
    with pytest.raises(ValueError, match=message):
        Trainer.resume(run, config, data)
    assert contents(run) == before


def test_a_damaged_checkpoint_names_the_one_before(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / runs.CHECKPOINTS / "000010" / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"remove .*000010 to continue from .*000008"):
        Trainer.resume(copy, CONFIG, DATA)
    shutil.rmtree(copy / runs.CHECKPOINTS / "000010")
    assert Trainer.resume(copy, CONFIG, DATA).step == 8


def test_how_to_resume_is_known_without_reading_the_folder(tmp_path: Path) -> None:
    new = Trainer.start(tmp_path / "run", CONFIG, DATA)
    assert new.advice() == "there is no checkpoint yet"
    list(islice(new, 6))
    new.lock.release()
    resumed = Trainer.resume(tmp_path / "run", CONFIG, DATA)
    shutil.rmtree(tmp_path / "run")
    command = f"tinygpt train --resume {tmp_path / 'run'}"
    for each in (new, resumed):
        assert each.advice() == f"resume with {command}, from the checkpoint of step 4"


# The folder of a run


def test_a_new_run_uses_only_a_folder_without_other_files(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for folder in (tmp_path / "mine", run):
        before = contents(folder)
        with pytest.raises(CheckpointError, match=f"{folder.name} exists already.*--resume"):
            Trainer.start(folder, CONFIG, DATA)
        assert before.items() <= contents(folder).items()
    (left := tmp_path / "killed while starting").mkdir()
    (left / ".lock").touch()
    for name in ("config.json", "metrics.jsonl"):
        files.temporary_name(left / name).write_text("{")
    trainer = Trainer.start(left, CONFIG, DATA)
    assert sorted(path.name for path in left.iterdir()) == [".lock", "config.json"]
    assert trainer.config == runs.read_config(left)


def test_a_run_that_needs_more_memory_than_available_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"take about [\d,]+ MB, but only [\d,]+ MB.* available"):
        Trainer.start(tmp_path / "run", replace(CONFIG, batch_size=10**9), DATA)
    assert not (tmp_path / "run").exists()


def test_a_name_taken_by_another_process_in_the_meantime_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, mkdir = tmp_path / "cpu", Path.mkdir

    def taken_just_before(path: Path, *args: Any, **kwargs: Any) -> None:
        if path == first:
            mkdir(path)
        mkdir(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", taken_just_before)
    started = [Trainer.start(first, NUMPY, DATA, numbered=True) for _ in range(2)]
    assert [trainer.run.name for trainer in started] == ["cpu-2", "cpu-3"]
    assert [trainer.lock.is_locked for trainer in started] == [True] * 2


def test_only_one_process_trains_a_run(tmp_path: Path) -> None:
    trainer = stop_after(tmp_path / "run", 1)
    for enter in (Trainer.resume, Trainer.start):
        with pytest.raises(CheckpointError, match="run is being trained by another process"):
            enter(tmp_path / "run", CONFIG, DATA)
    trainer.lock.release()
    Trainer.resume(tmp_path / "run", CONFIG, DATA)


# The best checkpoint


def resume_with(
    run: Path, config: TrainConfig, val_loss: float, monkeypatch: pytest.MonkeyPatch
) -> int:
    """Train on with one validation loss, and return the step of the start."""
    monkeypatch.setattr(Trainer, "evaluate", lambda self: val_loss)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    trainer = Trainer.resume(run, config, DATA)
    start = trainer.step
    list(trainer)
    trainer.lock.release()
    return start


def train_with(
    run: Path, losses: list[float], monkeypatch: pytest.MonkeyPatch, keep_best: bool = True
) -> TrainConfig:
    """Train with these validation losses at steps 0, 2, 4 and so on."""
    config = replace(NUMPY, eval_interval=2, max_iters=2 * len(losses) - 2, keep_best=keep_best)
    given = iter(losses)
    monkeypatch.setattr(Trainer, "evaluate", lambda self: next(given))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    trainer = Trainer.start(run, config, DATA)
    list(trainer)
    trainer.lock.release()
    return config


def test_keep_best_can_be_turned_off_and_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    config = train_with(run, [1.0, 2.0, 1.5], monkeypatch, keep_best=False)
    assert steps(run) == [2, 4]
    assert not os.path.lexists(best(run))
    resume_with(run, replace(config, max_iters=6, keep_best=True), 1.7, monkeypatch)
    assert checkpoint.load_state(best(run)).step == 4
    resume_with(run, replace(config, max_iters=10), 1.7, monkeypatch)
    assert steps(run) == [4, 8, 10]
    assert checkpoint.load_state(best(run)).step == 4


@pytest.mark.parametrize("links", [True, False])
def test_a_copied_run_continues_with_its_best_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    config = train_with(tmp_path / "run", [3.0, 1.0, 2.0, 2.0, 2.0], monkeypatch)
    copy = shutil.copytree(tmp_path / "run", tmp_path / "copy", symlinks=links)
    if not links:
        shutil.rmtree(copy / "checkpoints" / "000002")  # best is a folder, not a link.
    for max_iters, val_loss, expected in ((10, 1.5, 2), (12, 0.5, 12)):
        start = resume_with(copy, replace(config, max_iters=max_iters), val_loss, monkeypatch)
        assert start == max_iters - 2  # That of the last checkpoint, not of the best.
        assert checkpoint.load_state(best(copy)).step == expected
    assert steps(copy) == [10, 12]


@pytest.mark.parametrize("place", ["symlink_to", "replace", "rename"])
def test_the_best_checkpoint_survives_a_crash_while_it_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    config = train_with(tmp_path / "run", [3.0, 1.0, 2.0, 2.0], monkeypatch)
    trainer = Trainer.at_last_checkpoint(tmp_path / "run", config, DATA)
    trainer.step, trainer.val_loss, trainer.config = 7, 0.5, replace(config, max_iters=7)
    checkpoints = tmp_path / "run" / "checkpoints"
    with monkeypatch.context() as crashing:
        crashing.setattr(Path, place, Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            trainer.save()
    assert checkpoint.load_state(best(tmp_path / "run")).val_loss in (1.0, 0.5)
    trainer.save()
    checkpoint.prune(checkpoints, keep_best=True)
    assert checkpoint.load_state(best(tmp_path / "run")).step == 7
    assert sorted(path.name for path in checkpoints.iterdir()) == ["000006", "000007", "best"]


# Failures that do not end a training


def test_a_plot_is_drawn_after_every_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plotted: list[Path] = []
    monkeypatch.setattr(metrics, "plot_losses", plotted.append)
    list(Trainer.start(tmp_path / "run", NUMPY, DATA))
    assert plotted == [tmp_path / "run"] * 4


def test_training_continues_if_the_file_system_has_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse = Mock(side_effect=PermissionError(1, "Operation not permitted"))
    monkeypatch.setattr(Path, "symlink_to", refuse)
    trainer = Trainer.start(tmp_path / "run", NUMPY, DATA)
    list(trainer)
    assert len(steps(tmp_path / "run")) >= 2
    (note,) = trainer.new_notes()
    assert "best cannot be written: Operation not permitted" in note
    assert trainer.new_notes() == []


def test_a_step_whose_metrics_cannot_be_written_can_be_saved(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = stop_after(tmp_path / "run", 5)
    with monkeypatch.context() as failing:
        failing.setattr(metrics, "record", Mock(side_effect=OSError(28, "No space left")))
        with pytest.raises(OSError, match="No space left"):
            trainer.advance()
    trainer.save()
    trainer.lock.release()
    resumed = Trainer.resume(tmp_path / "run", CONFIG, DATA)
    assert losses(list(resumed)) == written(run)[6:]


# Values that are not finite


NOT_FINITE = r"at step 0: loss \d.*first tensor .* is the gradient of h\.1\.mlp\.c_fc\.weight"


SQUARE = r"the square of the gradient of ln_f\.bias"


@pytest.mark.parametrize(
    ("optimizer", "backend", "name", "value", "grad_clip", "message"),
    [
        ("adamw", "numpy", "h.1.mlp.c_fc.weight", np.nan, 0.0, NOT_FINITE),
        ("adamw", "numba", "h.1.mlp.c_fc.weight", np.inf, 0.0, NOT_FINITE),
        ("adamw", "numpy", "ln_f.bias", 1e20, 0.0, SQUARE),
        ("adamw", "numba", "ln_f.bias", 1e20, 1.0, None),  # Clipping makes it small enough.
        ("muon", "numba", "h.1.mlp.c_fc.weight", np.nan, 0.0, NOT_FINITE),
        ("muon", "numpy", "ln_f.bias", 1e20, 0.0, SQUARE),
        # Muon averages no squares of its matrices.
        ("muon", "numpy", "h.1.mlp.c_fc.weight", 1e20, 0.0, None),
        ("muon", "numba", "h.1.mlp.c_fc.weight", 1e20, 0.0, None),
    ],
)
def test_a_gradient_that_the_optimizer_cannot_average_stops_training_before_the_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: Any, backend: Backend, name: str,
    value: float, grad_clip: float, message: str | None,
) -> None:  # fmt: skip
    config = replace(CONFIG, backend=backend, grad_clip=grad_clip, optimizer=optimizer)
    trainer = Trainer.start(tmp_path / "run", config, DATA)
    before = {name: param.copy() for name, param in trainer.model.params.items()}
    compute = trainer.engine.accumulate

    def spoiled(batches: Any, grads: Any, *args: Any) -> Any:
        losses = compute(batches, grads, *args)
        grads[0][name].flat[3] = value
        return losses

    monkeypatch.setattr(trainer.engine, "accumulate", spoiled)
    if message is None:
        trainer.advance()
    else:
        with pytest.raises(NotFiniteError, match=message):
            trainer.advance()
    assert len(metrics.read(tmp_path / "run")) == (message is None)
    changed = {each for each, p in trainer.model.params.items() if (p != before[each]).any()}
    assert (name in changed) == (message is None)
    assert message is None or not changed
    assert all(np.isfinite(param).all() for param in trainer.model.params.values())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DIVERGING, r"at step 1: loss nan.* The first tensor .* is an activation of h\.0\.attn"),
        # Each is evaluated, and would be saved, directly after the step that ruins the weights.
        (replace(DIVERGING, eval_interval=1), "last good checkpoint is .*checkpoints.000000"),
        (replace(DIVERGING, max_iters=1, learning_rate=1e38, lr_decay_iters=9), "at step 1"),
        # A finite loss: only the scores of attention overflow, as 1e20² is infinite in float32.
        (
            replace(CONFIG, learning_rate=1e20, warmup_iters=0, bias=False, eval_interval=1),
            r"the weights have grown too large.*h\.0\.attn",
        ),
    ],
)
def test_ruined_weights_are_not_saved(tmp_path: Path, config: Any, message: str) -> None:
    with pytest.raises(NotFiniteError, match=message):
        list(Trainer.start(tmp_path / "run", config, DATA))
    assert steps(tmp_path / "run") == [0]
    assert all(row.val_loss is None or row.val_loss < 10 for row in metrics.read(tmp_path / "run"))
