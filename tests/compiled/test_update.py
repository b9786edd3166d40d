"""Muon's update on threads against the optimizer in float64; AdamW's is in test_engine.py."""

import functools
import tracemalloc
from dataclasses import fields, replace
from typing import cast

import numpy as np
import pytest
from helpers.small_gpts import CONFIG, assert_close, assert_same_bits, copied, generic, in_float64

import tinygpt_np as tg
from tinygpt_np import TrainConfig
from tinygpt_np.compiled import update
from tinygpt_np.compiled.engine import CompiledEngine
from tinygpt_np.config import Architecture
from tinygpt_np.model import optimizer as optim
from tinygpt_np.model.optimizer import clip
from tinygpt_np.storage import parameters

SEEDS, RATE, GRAD_CLIP = range(10, 14), 1e-3, 0.3
CONFIGS = {
    "default": CONFIG,
    "parts": replace(CONFIG, n_kv_head=2, n_inner=50, activation="swiglu", tied_head=False),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def muon(model: tg.GPT) -> optim.AdamW:
    shape = {field.name: getattr(model.config, field.name) for field in fields(Architecture)}
    config = TrainConfig(
        optimizer="muon", weight_decay=0.3, muon_learning_rate=0.05, muon_momentum=0.8, **shape
    )
    return optim.make(config, model.params)


def updated(config: tg.GPTConfig, threads: int) -> tuple[tg.GPT, optim.AdamW]:
    model, _, _ = generic(config)
    optimizer = muon(model)
    with CompiledEngine(model, 2, threads) as engine:
        for seed in SEEDS:
            grads = generic(config, seed)[0].params
            engine.update(optimizer, grads, engine.norm(grads), RATE, GRAD_CLIP)
    return model, optimizer


@every_config
def test_an_update_by_muon_is_that_of_the_optimizer_in_float64(config: tg.GPTConfig) -> None:
    truth = in_float64(generic(config)[0])
    expected = muon(truth)
    for seed in SEEDS:
        grads = {n: g.astype(np.float64) for n, g in generic(config, seed)[0].params.items()}
        expected.update(truth.params, clip(grads, optim.global_norm(grads), GRAD_CLIP), RATE)
    model, found = updated(config, 2)
    assert_close(found.first, expected.first, 1e-6)
    assert_close(found.second, expected.second, 1e-6)
    assert_close(model.params, truth.params, 2e-6)


@every_config
def test_an_update_by_muon_has_the_same_bits_on_any_number_of_threads(
    config: tg.GPTConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parameters, "BLOCK", 1000)
    model, optimizer = updated(config, 1)
    for threads in (2, 3):
        again, other = updated(config, threads)
        assert_same_bits(again.params, model.params)
        assert_same_bits(other.first, optimizer.first)


def test_the_longest_matrices_are_updated_first_and_each_once() -> None:
    model, _, _ = generic(CONFIGS["parts"])
    tasks = cast(list[functools.partial[None]], update.matrix_tasks(
        muon(model), model.params, model.params, 1.0, RATE
    ))  # fmt: skip
    matrices = [each.args for each in tasks]
    sides = [sorted((len(param), part.stop - part.start)) for param, _, _, part, *_ in matrices]
    work = [short * short * long for short, long in sides]
    assert work == sorted(work, reverse=True)
    # In a block: queries, keys, values, c_proj; the halves of c_fc, and c_proj.
    block = [*[(40, 40), (20, 40), (20, 40), (40, 40)], *[(40, 50)] * 3]
    assert sorted(map(tuple, sides)) == sorted(2 * block)


def test_an_update_by_muon_in_steady_state_allocates_next_to_nothing() -> None:
    model, _, _ = generic(replace(CONFIG, n_embd=128))
    optimizer, grads, peaks = muon(model), copied(model.params), list[int]()
    with CompiledEngine(model, 2, 2) as engine:
        for _ in range(3):
            tracemalloc.start()
            engine.update(optimizer, grads, 1.0, RATE, GRAD_CLIP)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    # Less than the smallest matrix that is orthogonalized.
    assert peaks[-1] < model.params["h.0.attn.c_proj.weight"].nbytes


def test_compiling_an_update_changes_nothing() -> None:
    model, _, _ = generic(CONFIG)
    optimizer = muon(model)
    before = copied(model.params), copied(optimizer.first)
    update.warm_up(optimizer)
    assert_same_bits(model.params, before[0])
    assert_same_bits(optimizer.first, before[1])
    assert optimizer.steps == 0
