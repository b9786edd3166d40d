"""A run's folder: how it is started, which checkpoints it keeps, and what cannot end a training."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from training.test_trainer import CONFIG, DATA

from tinygpt_np.storage import checkpoint, files
from tinygpt_np.storage.checkpoint import CheckpointError
from tinygpt_np.training import metrics, runs
from tinygpt_np.training.trainer import Trainer

SECONDS = 120
NUMPY = replace(CONFIG, backend="numpy", dropout=0.0, n_layer=1)


def best(run: Path) -> Path:
    return run / runs.CHECKPOINTS / checkpoint.BEST


def steps(run: Path) -> list[int]:
    return [int(folder.name) for folder in checkpoint.steps_in(run / runs.CHECKPOINTS)]


# Starting

KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from training.test_train_runs import NUMPY, DATA, Trainer
{kill}
Trainer.start(Path("run"), NUMPY, DATA)
"""


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
@pytest.mark.parametrize(
    "kill",
    [
        "os.fsync = lambda descriptor: os._exit(9)",
        "Path.replace = lambda self, target: os._exit(9)",
        "Trainer.write_config = lambda self: os._exit(9)",
    ],
)
def test_a_run_killed_before_its_config_was_written_can_be_started_again(
    tmp_path: Path, kill: str
) -> None:
    code = KILLED.format(tests=str(Path(__file__).parents[1]), kill=kill)
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=SECONDS)
    assert result.returncode == 9
    trainer = Trainer.start(tmp_path / "run", NUMPY, DATA)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock", "config.json"]
    assert trainer.config == runs.read_config(tmp_path / "run")


def test_a_folder_with_anything_else_in_it_is_not_started_in(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="run exists already, and nothing is overwritten"):
        Trainer.start(tmp_path / "run", NUMPY, DATA)


def test_numbered_runs_take_the_next_free_name(tmp_path: Path) -> None:
    started = [Trainer.start(tmp_path / "cpu", NUMPY, DATA, numbered=True) for _ in range(3)]
    assert [trainer.run.name for trainer in started] == ["cpu", "cpu-2", "cpu-3"]
    assert [trainer.lock.is_locked for trainer in started] == [True] * 3


def test_a_name_that_is_taken_between_looking_and_creating_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, mkdir = tmp_path / "cpu", Path.mkdir

    def taken_just_before(path: Path, *args: Any, **kwargs: Any) -> None:
        if path == first:
            mkdir(path)
        mkdir(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", taken_just_before)
    assert Trainer.start(first, NUMPY, DATA, numbered=True).run == tmp_path / "cpu-2"


# The best checkpoint


def train_with(
    run: Path, losses: list[float], monkeypatch: pytest.MonkeyPatch, keep_best: bool = True
) -> Trainer:
    """A run with these validation losses at steps 0, 2, 4 …"""
    config = replace(NUMPY, eval_interval=2, max_iters=2 * len(losses) - 2, keep_best=keep_best)
    given = iter(losses)
    monkeypatch.setattr(Trainer, "evaluate", lambda self: next(given))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    trainer = Trainer.start(run, config, DATA)
    list(trainer)
    return trainer


@pytest.mark.parametrize(
    ("losses", "kept", "at"),
    [
        ([3.0, 1.0, 2.0, 2.0, 2.0], [2, 6, 8], 2),
        ([3.0, 2.5, 2.0, 1.5, 1.0], [6, 8], 8),
        ([1.0, 2.0, 1.0, 2.0, 3.0], [0, 6, 8], 0),
        ([3.0, 2.0, 1.0, 2.0, 0.5], [6, 8], 8),
    ],
)
def test_the_checkpoint_with_the_lowest_validation_loss_is_kept_with_the_last_two(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    losses: list[float],
    kept: list[int],
    at: int,
) -> None:
    train_with(tmp_path / "run", losses, monkeypatch)
    assert steps(tmp_path / "run") == kept
    state = checkpoint.load_state(best(tmp_path / "run"))
    assert (state.step, state.val_loss) == (at, min(losses))


def test_the_best_checkpoint_is_loaded_by_its_name_and_resuming_uses_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = train_with(tmp_path / "run", [3.0, 1.0, 2.0, 2.0, 2.0], monkeypatch)
    trainer.lock.release()
    model, _ = runs.load(best(tmp_path / "run"))
    second, _ = runs.load(tmp_path / "run" / "checkpoints" / "000002")
    assert (model.params["wte.weight"] == second.params["wte.weight"]).all()
    longer = replace(trainer.config, max_iters=9)
    assert Trainer.resume(tmp_path / "run", longer, DATA).step == 8


def test_without_keep_best_only_the_last_two_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_with(tmp_path / "run", [1.0, 2.0, 3.0, 4.0], monkeypatch, keep_best=False)
    assert steps(tmp_path / "run") == [4, 6]
    assert not os.path.lexists(best(tmp_path / "run"))


def test_a_checkpoint_that_was_best_stays_when_keep_best_is_turned_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = train_with(tmp_path / "run", [3.0, 1.0, 2.0], monkeypatch)
    trainer.lock.release()
    monkeypatch.undo()
    longer = replace(trainer.config, max_iters=10, keep_best=False)
    list(Trainer.resume(tmp_path / "run", longer, DATA))
    assert steps(tmp_path / "run") == [2, 8, 10]
    assert checkpoint.load_state(best(tmp_path / "run")).step == 2


@pytest.mark.parametrize("links", [True, False])
def test_a_copy_of_a_run_goes_on_with_its_best_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    trainer = train_with(tmp_path / "run", [3.0, 1.0, 2.0, 2.0, 2.0], monkeypatch)
    monkeypatch.undo()
    copy = shutil.copytree(tmp_path / "run", tmp_path / "copy", symlinks=links)
    (copy / ".lock").unlink()
    if not links:
        shutil.rmtree(copy / "checkpoints" / "000002")  # best is a folder of its own.
    monkeypatch.setattr(Trainer, "evaluate", lambda self: 1.5)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    list(Trainer.resume(copy, replace(trainer.config, max_iters=10), DATA))
    assert checkpoint.load_state(best(copy)).step == 2
    monkeypatch.setattr(Trainer, "evaluate", lambda self: 0.5)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    copied = replace(trainer.config, max_iters=12)
    shutil.copytree(copy, tmp_path / "again", symlinks=True)
    list(Trainer.resume(tmp_path / "again", copied, DATA))
    assert checkpoint.load_state(best(tmp_path / "again")).step == 12
    assert steps(tmp_path / "again") == [10, 12]


def test_a_run_from_before_best_checkpoints_gets_one_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = train_with(tmp_path / "run", [3.0, 1.0, 2.0], monkeypatch, keep_best=False)
    trainer.lock.release()
    monkeypatch.setattr(Trainer, "evaluate", lambda self: 2.5)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    list(
        Trainer.resume(tmp_path / "run", replace(trainer.config, max_iters=8, keep_best=True), DATA)
    )
    assert checkpoint.load_state(best(tmp_path / "run")).step == 2


@pytest.mark.parametrize("place", ["symlink_to", "replace", "rename"])
def test_the_best_checkpoint_survives_a_crash_wherever_it_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    trainer = train_with(tmp_path / "run", [3.0, 1.0, 2.0, 2.0], monkeypatch)
    trainer.lock.release()
    checkpoints = tmp_path / "run" / "checkpoints"
    state = replace(checkpoint.load_state(checkpoints / "000006"), step=7, val_loss=0.5)
    state = replace(state, config=replace(state.config, max_iters=7))
    optimizer = trainer.optimizer_tensors()
    files_of = trainer.dataset.tokenizer.files()
    checkpoint.save_checkpoint(
        checkpoints, trainer.model.config, trainer.model.params, files_of, optimizer, state
    )

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as crashing:
        crashing.setattr(Path, place, crash)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.prune(checkpoints, keep_best=True)
    assert checkpoint.load_state(best(tmp_path / "run")).val_loss in (1.0, 0.5)
    checkpoint.prune(checkpoints, keep_best=True)
    assert checkpoint.load_state(best(tmp_path / "run")).step == 7
    assert steps(tmp_path / "run") == [6, 7]
    assert sorted(path.name for path in checkpoints.iterdir()) == ["000006", "000007", "best"]


# Failures that do not end a training


def test_training_goes_on_where_no_picture_can_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    trainer = Trainer.start(tmp_path / "run", NUMPY, DATA)
    rows = list(trainer)
    assert rows[-1].step == NUMPY.max_iters
    (note,) = trainer.new_notes()
    assert note.startswith("loss.svg was not drawn: ")
    assert trainer.new_notes() == []


def test_training_goes_on_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    trainer = train_with(tmp_path / "run", [3.0, 1.0, 2.0, 2.0, 2.0], monkeypatch)
    assert steps(tmp_path / "run") == [2, 6, 8]
    (note,) = trainer.new_notes()
    assert "best cannot be written: Operation not permitted" in note


def test_training_goes_on_where_an_old_checkpoint_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer.start(tmp_path / "run", NUMPY, DATA)
    rename, refused = Path.rename, list[Path]()

    def in_use(path: Path, target: Path) -> Path:
        if path.name.isdecimal() and not files.is_temporary(path):
            refused.append(path)
            raise PermissionError(13, "used by another process")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", in_use)
    list(islice(trainer, 10))
    assert refused
    monkeypatch.undo()
    list(trainer)
    assert len(steps(tmp_path / "run")) <= 3


def test_a_step_whose_line_cannot_be_written_is_saved_as_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As when the terminal or the disk goes: what is saved then goes on bit for bit.
    whole = list(Trainer.start(tmp_path / "whole", NUMPY, DATA))
    trainer = Trainer.start(tmp_path / "run", NUMPY, DATA)
    list(islice(trainer, 5))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as failing:
        failing.setattr(metrics, "record", full)
        with pytest.raises(OSError, match="No space left"):
            trainer.advance()
    trainer.save()
    trainer.lock.release()
    resumed = Trainer.resume(tmp_path / "run", NUMPY, DATA)
    assert [row.loss for row in resumed] == [row.loss for row in whole[6:]]


def test_the_lines_of_metrics_are_those_of_every_step(tmp_path: Path) -> None:
    list(Trainer.start(tmp_path / "run", NUMPY, DATA))
    assert [row.step for row in metrics.read(tmp_path / "run")] == list(range(11))
