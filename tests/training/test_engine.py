"""The engines of both backends agree; memory estimates are about right."""

import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from helpers.errors import relative_error
from helpers.tiny_run import TEXT

from tinygpt_np.config import GPTConfig, TrainConfig, generator
from tinygpt_np.model.gpt import GPT
from tinygpt_np.model.optimizer import AdamW, clip, global_norm
from tinygpt_np.storage.parameters import param_count
from tinygpt_np.text import dataset
from tinygpt_np.text.corpus import Corpus
from tinygpt_np.training import engine
from tinygpt_np.training.engine import NumPyEngine
from tinygpt_np.training.trainer import Trainer

RUN = TrainConfig(
    block_size=6, n_layer=2, n_head=2, n_embd=10, batch_size=5, dropout=0.25, threads=2
)
CONFIG = RUN.gpt(vocab_size=13)
Backend = Literal["numpy", "numba"]

of_both = pytest.mark.parametrize("backend", ["numpy", "numba"])


def generic(config: GPTConfig, backend: Backend) -> GPT:
    model, rng = GPT(config, backend=backend), generator(3, "init")
    for name, param in model.params.items():
        model.params[name] = rng.standard_normal(param.shape, np.float32)
    return model


def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = generator(4, "data")
    shape = (RUN.batch_size, RUN.block_size)
    return rng.integers(0, CONFIG.vocab_size, shape), rng.integers(-1, CONFIG.vocab_size, shape)


@of_both
@pytest.mark.parametrize("batches", [1, 3])
def test_gradients_are_those_of_the_model_with_the_same_masks(
    backend: Backend, batches: int
) -> None:
    model = generic(CONFIG, backend)
    run = replace(RUN, backend=backend, gradient_accumulation_steps=batches)
    steps = engine.make(model, run)
    rng = generator(4, "data")
    shape = (run.sequences_per_step, run.block_size)
    tokens, targets = (rng.integers(low, CONFIG.vocab_size, shape) for low in (0, -1))
    if batches > 1:  # Batches count by their targets; the second has none.
        targets[5:10] = -1
    dropout = steps.draw(generator(7, "dropout"))
    loss, grads = steps.loss_and_grads(tokens, targets, dropout)
    truth = GPT(CONFIG, dtype="float64")
    truth.params = {name: param.astype("float64") for name, param in model.params.items()}
    masks = {n: m.astype("float64") for n, m in steps.masks(shape, dropout).items()}
    expected_loss, expected = truth.loss_and_grads(tokens, targets, masks)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert grads.keys() == expected.keys()
    for name, grad in expected.items():
        assert relative_error(grads[name], grad) < 1e-5
    steps.close()


@of_both
def test_dropout_is_drawn_from_the_generator(backend: Backend) -> None:
    steps = engine.make(generic(CONFIG, backend), replace(RUN, backend=backend))
    shape, rng = batch()[0].shape, generator(7, "dropout")
    first, second = (steps.masks(shape, steps.draw(rng)) for _ in range(2))
    again = steps.masks(shape, steps.draw(generator(7, "dropout")))
    for name, mask in first.items():
        np.testing.assert_array_equal(again[name], mask)
        assert (second[name] != mask).any()
    steps.close()


@of_both
def test_an_update_is_clipped_adamw(backend: Backend) -> None:
    model = generic(CONFIG, backend)
    steps = engine.make(model, replace(RUN, backend=backend))
    truth = generic(CONFIG, "numpy")
    optimizer, reference = (AdamW(each.params, 0.8, 0.9, 0.2) for each in (model, truth))
    for seed in range(3):
        rng = generator(seed, "init")
        grads = {n: rng.standard_normal(p.shape, np.float32) for n, p in model.params.items()}
        norm = steps.norm(grads)
        assert norm == pytest.approx(global_norm(grads), rel=1e-12)
        steps.update(optimizer, grads, norm, 0.05, norm / 3)
        reference.update(truth.params, clip(grads, norm, norm / 3), 0.05)
    for name, param in truth.params.items():
        assert relative_error(model.params[name], param) < 1e-6
        # Adam's updates hardly depend on the size of the gradients; its moving averages do.
        assert relative_error(optimizer.first[name], reference.first[name]) < 1e-6
        assert relative_error(optimizer.second[name], reference.second[name]) < 1e-6
    steps.close()


@of_both
def test_the_loss_has_no_dropout_and_any_batch_shape(backend: Backend) -> None:
    model = generic(CONFIG, backend)
    steps = engine.make(model, replace(RUN, backend=backend))
    tokens, targets = batch()
    for rows, time in ((5, 6), (2, 6), (1, 4)):
        part = tokens[:rows, :time], targets[:rows, :time]
        assert steps.loss(*part) == pytest.approx(model.loss(*part), rel=1e-6)
    steps.close()


def test_training_with_numpy_does_not_import_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    # Importing a module that is None in sys.modules fails.
    monkeypatch.setitem(sys.modules, "tinygpt_np.compiled.engine", None)
    model = GPT(CONFIG)
    assert isinstance(engine.make(model, replace(RUN, backend="numpy")), NumPyEngine)
    with pytest.raises(ImportError):
        engine.make(model, RUN)


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "libraries"), [("numpy", 130e6), ("numba", 300e6)])
def test_the_memory_estimate_is_about_what_training_takes(
    tmp_path: Path, backend: Backend, libraries: float
) -> None:
    run = TrainConfig(
        n_embd=192, n_head=4, n_layer=4, block_size=64, batch_size=32, max_iters=2, threads=2,
        backend=backend,
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


def test_memory_grows_with_threads_and_numpy_needs_most() -> None:
    large = TrainConfig(n_embd=384, block_size=256, n_layer=6, n_head=6, batch_size=64)
    needs = [
        engine.memory_estimate(large.gpt(65), replace(large, threads=threads))
        for threads in (1, 2, 3)
    ]
    assert needs[0] < needs[1] < needs[2]
    numpy = engine.memory_estimate(large.gpt(65), replace(large, backend="numpy"))
    assert numpy > 5 * needs[2]


def test_a_large_compiled_model_needs_four_copies_of_its_parameters() -> None:
    run = TrainConfig(n_embd=768, block_size=16, n_layer=12, n_head=12, batch_size=1)
    config = run.gpt(50257)
    needed = engine.memory_estimate(config, run)
    assert 4 * 4 * param_count(config) < needed < 2 * 4 * 4 * param_count(config)


def test_accumulation_in_numpy_needs_one_more_copy_of_the_gradients() -> None:
    run = TrainConfig(n_embd=768, block_size=16, n_layer=12, n_head=12, backend="numpy")
    config = run.gpt(65)
    one, two = (
        engine.memory_estimate(config, replace(run, gradient_accumulation_steps=steps))
        for steps in (1, 2)
    )
    assert two - one == 4 * param_count(config)


def test_numpy_accumulates_in_the_memory_of_one_batch() -> None:
    run = TrainConfig(n_embd=64, n_head=4, n_layer=2, block_size=32, batch_size=8, backend="numpy")
    config = run.gpt(vocab_size=13)
    peaks: list[int] = []
    for batches in (1, 4):
        steps = engine.make(GPT(config), replace(run, gradient_accumulation_steps=batches))
        tokens = generator(4, "data").integers(0, 13, (8 * batches, 32))
        tracemalloc.start()
        steps.loss_and_grads(tokens, tokens)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    grads = sum(param.nbytes for param in GPT(config).params.values())
    assert peaks[1] < peaks[0] + 3 * grads
