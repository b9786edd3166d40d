"""A training has the same bits on any number of ranks and threads."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.small_gpts import assert_same_bits
from helpers.thread_ranks import Request, World, on_ranks
from helpers.tiny_run import CONFIG, DATA

from tinygpt_np import machine
from tinygpt_np.compiled import engine as compiled
from tinygpt_np.config import TrainConfig
from tinygpt_np.storage import parameters
from tinygpt_np.storage.parameters import Tensors, param_count
from tinygpt_np.text import batches
from tinygpt_np.training import metrics, runs
from tinygpt_np.training.engine import check_memory, memory_estimate
from tinygpt_np.training.gradients import GradientSum
from tinygpt_np.training.ranks.group import ALONE, Group
from tinygpt_np.training.ranks.order import Round
from tinygpt_np.training.trainer import Trainer

BASE = replace(
    CONFIG, batch_size=2, gradient_accumulation_steps=6, max_iters=4, eval_interval=2, dropout=0.2,
    lr_decay_iters=4, grad_clip=0.5, threads=1,
)  # fmt: skip
CONFIGS = {
    "adamw": BASE,
    "muon": replace(BASE, optimizer="muon", data_order="epochs", tied_head=False),
    "numpy": replace(BASE, backend="numpy", dtype="float64"),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameters, "BLOCK", 100)
    monkeypatch.setattr(compiled, "MOST_ROWS", 8)
    monkeypatch.setattr(batches, "EVAL_TOKENS", 24)


def trained(run: Path, config: TrainConfig, group: Group = ALONE) -> tuple[Any, Tensors]:
    """Return losses and norms of a run, and its weights."""
    trainer = Trainer.start(run, config, DATA, group=group)
    return finished(trainer)


def finished(trainer: Trainer) -> tuple[Any, Tensors]:
    """Return losses and norms of the remaining steps, and the last weights."""
    rows = [(row.loss, row.val_loss, row.grad_norm) for row in trainer]
    trainer.lock.release()
    return rows, trainer.model.params


@pytest.mark.parametrize("name", CONFIGS)
def test_a_training_has_the_same_bits_on_any_number_of_ranks(tmp_path: Path, name: str) -> None:
    rows, params = trained(tmp_path / "1", CONFIGS[name])
    files = {path.name: path.read_bytes() for path in (tmp_path / "1/checkpoints/000004").iterdir()}
    for ranks in (2, 3, 6):
        config = replace(CONFIGS[name], threads=ranks % 2 + 1)
        run = tmp_path / str(ranks)
        for found, weights in on_ranks(ranks, lambda g, r=run, c=config: trained(r, c, g), ranks):
            assert found == rows
            assert_same_bits(weights, params)
        for file in ("model.safetensors", "optimizer.safetensors"):
            assert (run / "checkpoints/000004" / file).read_bytes() == files[file]
        assert [row.loss for row in metrics.read(run)] == [loss for loss, _, _ in rows]


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_run_continues_with_the_same_bits_on_another_number_of_ranks(
    tmp_path: Path, name: str
) -> None:
    config = CONFIGS[name]
    rows, params = trained(tmp_path / "whole", config)
    run = tmp_path / "run"
    on_ranks(3, lambda group: trained(run, replace(config, max_iters=2), group))

    def resumed(group: Group) -> tuple[Any, Tensors]:
        return finished(Trainer.resume(run, config, DATA, group=group))

    for found, weights in on_ranks(2, resumed):
        assert found == rows[2:]
        assert_same_bits(weights, params)
    assert runs.last_checkpoint(run)[1].step == 4


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_of_late_layers_travel_while_those_of_early_ones_are_computed(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = list[str]()
    complete, send = GradientSum.complete, World.Isend

    def completed(self: GradientSum, each: Round, is_last: bool, tensor: str) -> None:
        if is_last and self.group.rank == 1:
            events.append(tensor)
        complete(self, each, is_last, tensor)

    def sent(self: World, array: np.ndarray, target: int, tag: Any) -> Request:
        if self.rank == 1 and isinstance(tag, int):
            events.append("a partial sum")
        return send(self, array, target, tag)

    monkeypatch.setattr(GradientSum, "complete", completed)
    monkeypatch.setattr(World, "Isend", sent)
    config = replace(CONFIGS[name], max_iters=1)
    on_ranks(2, lambda group: trained(tmp_path / "run", config, group))
    late, early = (events.index(f"h.{layer}.mlp.c_proj.weight") for layer in (1, 0))
    assert "a partial sum" in events[late:early], events


def test_a_fast_reduction_gives_about_the_same_losses(tmp_path: Path) -> None:
    rows, _ = trained(tmp_path / "exact", BASE)
    fast = replace(BASE, reduction="fast")
    for found, _ in on_ranks(3, lambda group: trained(tmp_path / "fast", fast, group)):
        losses = [[loss for loss, _, _ in each[:-1]] for each in (found, rows)]
        np.testing.assert_allclose(*losses, rtol=1e-4)


def test_ranks_share_the_state_of_the_optimizer(tmp_path: Path) -> None:
    def sizes(group: Group) -> int:
        trainer = Trainer(tmp_path / "run", BASE, DATA, group=group)
        state = trainer.optimizer
        return sum(each.nbytes for each in (*state.first.values(), *state.second.values()))

    alone, parts = sizes(ALONE), on_ranks(3, sizes)
    assert sum(parts) == alone
    assert max(parts) < 0.4 * alone


def test_the_memory_of_a_rank_is_less_but_for_the_first_which_saves_the_state_of_all() -> None:
    config = BASE.gpt(20)
    alone = memory_estimate(config, replace(BASE, gradient_accumulation_steps=1))
    first, *others = on_ranks(6, lambda group: memory_estimate(config, BASE, group))
    params = 4 * param_count(config)
    assert others == [first - 2 * params] * 5
    received = 4 * 5 * (param_count(config) // 6)
    assert others[0] == pytest.approx(alone - 2 * 5 / 6 * params + received, abs=1)


def test_memory_that_another_rank_has_taken_is_not_counted_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, taken = BASE.gpt(20), list[int]()

    def train(group: Group) -> int:
        time.sleep(group.rank / 20)
        needed = memory_estimate(config, BASE, group)
        check_memory(config, BASE, group)
        taken.append(needed)
        return needed

    monkeypatch.setattr(machine, "available_memory", lambda: 1e12)
    needed = sum(on_ranks(2, train))
    taken.clear()
    monkeypatch.setattr(machine, "available_memory", lambda: needed - sum(taken))
    on_ranks(2, train)
    monkeypatch.setattr(machine, "available_memory", lambda: needed - 1)
    with pytest.raises(ValueError, match=r"MB for the 2 ranks of this machine, but only"):
        on_ranks(2, train)


def test_batches_that_run_at_the_same_time_leave_the_bits_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "MOST_ROWS", 10**6)
    expected, params = trained(tmp_path / "1", replace(BASE, batch_size=1))
    config = replace(BASE, batch_size=1, threads=3)
    assert compiled.at_once(1, 3, 6) == 3
    found, weights = trained(tmp_path / "3", config)
    assert found == expected
    assert_same_bits(weights, params)
