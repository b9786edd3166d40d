"""NumPy accumulates over batches as if they were one; memory estimates are about right."""

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from helpers.errors import relative_error
from helpers.tiny_run import TEXT

from tinygpt_np import backend
from tinygpt_np.config import PRESETS, Preset, TrainConfig, generator
from tinygpt_np.model.gpt import GPT
from tinygpt_np.storage.parameters import param_count
from tinygpt_np.text import dataset
from tinygpt_np.text.corpus import Corpus
from tinygpt_np.training import engine
from tinygpt_np.training.trainer import Trainer


def test_the_gradients_of_batches_add_up_to_those_of_all_in_the_memory_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(backend, "engine")  # Training in NumPy loads no compiled code.
    run = TrainConfig(
        n_embd=64, n_head=4, n_layer=2, block_size=32, batch_size=8, dropout=0.25, backend="numpy"
    )
    config, peaks = run.gpt(vocab_size=13), list[int]()
    for batches in (1, 4):
        model = GPT(config, dtype="float64")
        steps = engine.make(model, replace(run, gradient_accumulation_steps=batches))
        rng, shape = generator(4, "data"), (8 * batches, 32)
        tokens, targets = (rng.integers(low, 13, shape) for low in (0, -1))
        targets[8:16] = -1  # Batches count by their targets; the second has none.
        total, dropout = int((targets != -1).sum()), steps.draw(generator(7, "dropout"))
        into = {name: np.full_like(param, np.nan) for name, param in model.params.items()}
        losses, grads = list[float](), {name: np.zeros_like(each) for name, each in into.items()}
        tracemalloc.start()
        for first in range(0, len(tokens), 8):
            done: list[str] = []
            batch = tokens[first : first + 8], targets[first : first + 8]
            losses += steps.accumulate([batch], [into], total, dropout, first, done.append)
            assert sorted(done) == sorted(grads)
            for name, grad in into.items():
                grads[name] += grad
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        masks = steps.masks(shape, dropout)
        expected_loss, expected = model.loss_and_grads(tokens, targets, masks)
        assert steps.mean(losses, total) == pytest.approx(expected_loss, rel=1e-12)
        assert all(relative_error(grads[name], grad) < 1e-12 for name, grad in expected.items())
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "libraries"), [("numpy", 130e6), ("numba", 300e6)])
@pytest.mark.parametrize("preset", ["cpu", "shakespeare"])
def test_the_memory_estimate_is_about_what_training_takes(
    tmp_path: Path, backend: Literal["numpy", "numba"], libraries: float, preset: Preset
) -> None:
    run = replace(
        PRESETS[preset], n_embd=192, n_head=4, n_layer=4, block_size=64, batch_size=32,
        max_iters=2, threads=2, backend=backend,
    )  # fmt: skip
    found = dataset.from_corpus(Corpus("long", TEXT * 60))
    # Load libraries and compiled code first.
    list(Trainer.start(tmp_path / "first", replace(run, n_layer=1), found))
    tracemalloc.start()
    trainer = Trainer.start(tmp_path / "run", run, found)
    estimate = engine.memory_estimate(trainer.model.config, run)
    list(trainer)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.5 < (estimate - libraries) / peak < 2


def test_memory_grows_with_threads_parameters_and_batches() -> None:
    large = TrainConfig(n_embd=384, block_size=256, n_layer=6, n_head=6, batch_size=64)
    in_numpy = replace(large, backend="numpy")
    accumulating = replace(in_numpy, gradient_accumulation_steps=2)
    one, two, numpy, more = (
        engine.memory_estimate(large.gpt(65), run)
        for run in (replace(large, threads=1), replace(large, threads=2), in_numpy, accumulating)
    )
    assert one < two < numpy / 5
    assert more - numpy == 4 * param_count(large.gpt(65))  # A second gradient.
    wide = TrainConfig(n_embd=768, block_size=16, n_layer=12, n_head=12, batch_size=1)
    parameters = 4 * param_count(wide.gpt(50257))
    assert 4 * parameters < engine.memory_estimate(wide.gpt(50257), wide) < 8 * parameters
