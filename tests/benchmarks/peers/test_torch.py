"""PyTorch's kernels pass the gate, and its models do the same work as ours."""

import importlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from helpers.gate import CASES, pass_gate
from helpers.optional import needs
from helpers.tiny_run import TEXT
from helpers.toy_jobs import TINY

from benchmarks.models import tinygpt
from benchmarks.worker.jobs import Job
from tinygpt_np.config import TrainConfig

needs("torch")
kernels: Any = importlib.import_module("benchmarks.peers.torch_kernels")
models: Any = importlib.import_module("benchmarks.peers.torch_models")
SIZES = {"batch": 5, "time": 7, "n_head": 6, "n_kv_head": 2, "head_size": 4}


@pytest.mark.parametrize(("operation", "direction"), CASES)
def test_a_kernel_is_right(operation: str, direction: str) -> None:
    (rung,) = kernels.rungs(operation)
    pass_gate(rung, operation, direction)


def test_pytorch_takes_as_many_threads_as_it_is_told() -> None:
    before = kernels.about()["threads"]
    try:
        kernels.set_up(threads=3)
        assert kernels.about()["threads"] == 3
    finally:
        kernels.set_up(threads=before)


def agreement(job: Job, steps: int = 1) -> Sequence[float]:
    return [number for _ in range(steps) for number in job.agreement(job.step(*job.draw()))]


def test_losses_and_norms_of_five_steps_are_ours() -> None:
    expected = agreement(tinygpt.train(asdict(TINY), 1, "numpy", "numba"), 5)
    found = agreement(models.train(asdict(TINY), 1, compiled=False), 5)
    assert found == pytest.approx(expected, rel=2e-4)


def test_a_run_has_the_losses_of_ours_at_each_evaluation(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    recipe = TrainConfig(
        data=str(text), n_layer=2, n_head=2, n_embd=12, block_size=7, batch_size=3, max_iters=12,
        warmup_iters=2, lr_decay_iters=9, learning_rate=5e-3, threads=1, seed=5,
    )  # fmt: skip
    ours, theirs = tinygpt.run(asdict(recipe)), models.run(asdict(recipe), compiled=False)
    assert ours.steps == theirs.steps == 12
    before = ours.evaluate()
    for steps in (0, 3, 9):
        ours.train(steps)
        theirs.train(steps)
        assert theirs.evaluate() == pytest.approx(ours.evaluate(), rel=1e-4)
    assert ours.evaluate() < before - 0.1


def test_a_sampled_text_begins_anew_from_the_seed_with_logits_that_are_ours() -> None:
    job = models.sample(asdict(TINY), 9, 1)
    drawn = [int(job.step()) for _ in range(2 + 9 + 9)]
    assert drawn[:2] == drawn[2:4]
    assert drawn[2:11] == drawn[11:]
    expected = tinygpt.sample(asdict(TINY), 9, "numpy", cached=False).agreement(None)
    assert job.agreement(None) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("from_qkv", [True, False])
def test_attention_and_its_gradient_are_ours(from_qkv: bool) -> None:
    expected = agreement(tinygpt.attention(SIZES, 1, "numpy"))
    found = agreement(models.attention(SIZES, 1, from_qkv))
    assert found == pytest.approx(expected, rel=1e-6)
