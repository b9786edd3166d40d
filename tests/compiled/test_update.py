"""Muon's update on threads against the optimizer in float64; AdamW's is in test_engine.py."""

from dataclasses import replace

import numpy as np
from helpers.small_gpts import CONFIG, assert_close, assert_same_bits, copied, generic, in_float64

import tinygpt_np as tg
from tinygpt_np import TrainConfig
from tinygpt_np.compiled.engine import CompiledEngine
from tinygpt_np.model import optimizer as optim
from tinygpt_np.model.optimizer import clip
from tinygpt_np.storage.parameters import Tensors

TRAINING = TrainConfig(
    n_layer=2, n_head=3, n_embd=36, bias=True, optimizer="muon", weight_decay=0.3,
    muon_learning_rate=0.05,
)  # fmt: skip


def updated(threads: int) -> tuple[tg.GPT, optim.AdamW]:
    model, _, _ = generic(CONFIG)
    optimizer = optim.make(TRAINING, model.params)
    with CompiledEngine(model, 2, threads) as engine:
        for seed in range(10, 14):
            grads = generic(CONFIG, seed)[0].params
            engine.update(optimizer, grads, engine.norm(grads), 1e-3, 0.3)
    return model, optimizer


def test_an_update_by_muon_is_that_of_the_optimizer_in_float64() -> None:
    truth = in_float64(generic(CONFIG)[0])
    expected = optim.make(TRAINING, truth.params)
    for seed in range(10, 14):
        grads = {n: g.astype(np.float64) for n, g in generic(CONFIG, seed)[0].params.items()}
        expected.update(truth.params, clip(grads, optim.global_norm(grads), 0.3), 1e-3)
    model, found = updated(2)
    assert_close(found.first, expected.first, 1e-6)
    assert_close(found.second, expected.second, 1e-6)
    assert_close(model.params, truth.params, 2e-6)


def test_an_update_by_muon_has_the_same_bits_on_any_number_of_threads() -> None:
    model, optimizer = updated(1)
    for threads in (2, 3):
        again, other = updated(threads)
        assert_same_bits(again.params, model.params)
        assert_same_bits(other.first, optimizer.first)


def test_compiling_an_update_changes_nothing() -> None:
    model, _, _ = generic(replace(CONFIG, n_layer=1))
    optimizer = optim.make(TRAINING, model.params)
    before: list[Tensors] = [copied(each) for each in (model.params, optimizer.first)]
    with CompiledEngine(model, 2, 1) as engine:
        engine.warm_up(optimizer)
    assert_same_bits(model.params, before[0])
    assert_same_bits(optimizer.first, before[1])
    assert optimizer.steps == 0
