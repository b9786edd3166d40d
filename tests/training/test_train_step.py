"""A training step records its speed and the norm of its gradients, and refuses bad norms."""

from collections import deque
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
from training.test_trainer import CONFIG, DATA

from tinygpt_np.cli.train import describe
from tinygpt_np.training import metrics
from tinygpt_np.training import trainer as train
from tinygpt_np.training.trainer import NotFiniteError, Trainer

Backend = Literal["numpy", "numba"]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_stops_the_run_though_the_loss_is_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: Backend, value: float
) -> None:
    config = replace(CONFIG, backend=backend, grad_clip=0.0)
    trainer = Trainer.start(tmp_path / "run", config, DATA)
    before = {name: param.copy() for name, param in trainer.model.params.items()}
    compute = trainer.engine.loss_and_grads

    def poisoned(*args: Any) -> tuple[float, dict[str, np.ndarray]]:
        loss, grads = compute(*args)
        grads["h.1.mlp.c_fc.weight"][2, 3] = value
        return loss, grads

    monkeypatch.setattr(trainer.engine, "loss_and_grads", poisoned)
    message = r"at step 0: loss \d.*first tensor .* is the gradient of h\.1\.mlp\.c_fc\.weight"
    with pytest.raises(NotFiniteError, match=message):
        trainer.advance()
    assert metrics.read(tmp_path / "run") == []
    for name, param in trainer.model.params.items():
        np.testing.assert_array_equal(param, before[name])


def test_the_speed_is_the_tokens_of_a_step_by_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(
        CONFIG, backend="numpy", block_size=8, batch_size=3, gradient_accumulation_steps=2
    )
    trainer = Trainer.start(tmp_path / "run", config, DATA)
    clock = iter([100.0, 100.25, 200.0, 204.0])
    monkeypatch.setattr(train, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    rows = [trainer.advance(), trainer.advance()]
    assert [row.tokens_per_second for row in rows] == [8 * 3 * 2 / 0.25, 8 * 3 * 2 / 4]
    assert list(trainer.step_seconds) == [0.25, 4.0]


def test_the_speed_that_is_shown_is_that_of_the_median_step(tmp_path: Path) -> None:
    trainer = Trainer.start(tmp_path / "run", replace(CONFIG, backend="numpy"), DATA)
    row = trainer.advance()
    trainer.step_seconds = deque([0.001, 2.0, 100.0])
    assert f"  {CONFIG.tokens_per_step / 2:,.0f} tokens/s  " in describe(trainer, row, None)
