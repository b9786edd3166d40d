"""Settings, presets, and random generators from one seed."""

import itertools
import math
import statistics
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import pytest

from tinygpt_np import GPTConfig, TrainConfig, config
from tinygpt_np.config import (
    PRESETS,
    PURPOSES,
    Architecture,
    Purpose,
    counted,
    expected_band,
    generator,
)

NAN, INFINITE = float("nan"), float("inf")
BAD_ARCHITECTURES: list[tuple[str, Any, str]] = [
    ("block_size", 0, "positive"),
    ("n_layer", -1, "positive"),
    ("n_head", 0, "positive"),
    ("n_embd", 0, "positive"),
    ("dropout", 1.0, "in [0, 1)"),
    ("dropout", NAN, "a finite number"),
    ("gelu", "relu", "one of tanh, exact"),
]
BAD_RUNS: list[tuple[str, Any, str]] = [
    ("batch_size", 0, "positive"),
    ("max_iters", 0, "positive"),
    ("eval_interval", -5, "positive"),
    ("learning_rate", 0.0, "positive"),
    ("learning_rate", NAN, "a finite number"),
    ("bias", 1, "true or false"),
    ("n_layer", True, "an integer"),
    ("seed", -1, "in [0, 2**32)"),
    ("seed", 2**32, "in [0, 2**32)"),
    ("min_lr", -1e-4, "zero or more"),
    ("min_lr", 0.5, "at most learning_rate = 0.001"),
    ("warmup_iters", -1, "zero or more"),
    ("lr_decay_iters", -1, "zero or more"),
    ("weight_decay", -0.1, "zero or more"),
    ("weight_decay", INFINITE, "a finite number"),
    ("grad_clip", -1.0, "zero or more"),
    ("beta1", 1.0, "in [0, 1)"),
    ("beta2", -0.5, "in [0, 1)"),
]


@pytest.mark.parametrize(("name", "value", "expected"), BAD_ARCHITECTURES)
def test_a_bad_architecture_names_the_field_its_value_and_what_is_expected(
    name: str, value: object, expected: str
) -> None:
    changed: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"^{name} must be") as caught:
        GPTConfig(vocab_size=7, **changed)
    assert str(caught.value) == f"{name} must be {expected}, not {value!r}"


@pytest.mark.parametrize(("name", "value", "expected"), BAD_ARCHITECTURES + BAD_RUNS)
def test_a_bad_run_names_the_field_its_value_and_what_is_expected(
    name: str, value: object, expected: str
) -> None:
    changed: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"^{name} must be") as caught:
        TrainConfig(**changed)
    assert str(caught.value) == f"{name} must be {expected}, not {value!r}"


def test_heads_divide_the_channels_and_there_are_tokens() -> None:
    with pytest.raises(ValueError, match="n_embd must be a multiple of n_head, but 10 is not"):
        GPTConfig(vocab_size=7, n_head=4, n_embd=10)
    with pytest.raises(ValueError, match="vocab_size must be positive, not 0"):
        GPTConfig(vocab_size=0)


def test_gpt_keeps_the_architecture_and_adds_the_vocabulary() -> None:
    shape: dict[str, Any] = {
        "block_size": 5, "n_layer": 2, "n_head": 3, "n_embd": 12,
        "dropout": 0.25, "bias": True, "gelu": "exact",
    }  # fmt: skip
    assert set(shape) == {field.name for field in fields(Architecture)}
    assert asdict(TrainConfig(**shape).gpt(7)) == {"vocab_size": 7, **shape}


# Presets

RECIPES: dict[str, dict[str, Any]] = {
    "cpu": {
        "n_layer": 4, "n_head": 4, "n_embd": 128, "block_size": 64, "batch_size": 12,
        "max_iters": 2000, "lr_decay_iters": 2000, "dropout": 0.0, "learning_rate": 1e-3,
        "min_lr": 1e-4, "warmup_iters": 100, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.1,
        "grad_clip": 1.0, "bias": False,
    },
    "lecture-small": {
        "n_layer": 4, "n_head": 4, "n_embd": 64, "block_size": 32, "batch_size": 16,
        "max_iters": 5000, "dropout": 0.0, "learning_rate": 1e-3, "min_lr": 1e-3,
        "warmup_iters": 0, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.01, "grad_clip": 0.0,
    },
    "lecture": {
        "n_layer": 6, "n_head": 6, "n_embd": 384, "block_size": 256, "batch_size": 64,
        "max_iters": 5000, "dropout": 0.2, "learning_rate": 3e-4, "min_lr": 3e-4,
        "warmup_iters": 0, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.01, "grad_clip": 0.0,
    },
    "gpt2-124m": {
        "n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024, "batch_size": 12,
        "gradient_accumulation_steps": 40, "max_iters": 600000, "lr_decay_iters": 600000,
        "learning_rate": 6e-4, "min_lr": 6e-5, "warmup_iters": 2000, "beta1": 0.9, "beta2": 0.95,
        "weight_decay": 0.1, "grad_clip": 1.0, "dropout": 0.0, "bias": False, "tokenizer": "gpt2",
        "eval_interval": 1000,
    },
    "finetune-shakespeare": {
        "block_size": 1024, "batch_size": 1, "gradient_accumulation_steps": 32, "max_iters": 20,
        "learning_rate": 3e-5, "min_lr": 3e-5, "warmup_iters": 0, "eval_interval": 5,
        "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1, "grad_clip": 1.0, "dropout": 0.0,
        "tokenizer": "gpt2",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_a_preset_is_the_published_recipe(name: str) -> None:
    preset = asdict(PRESETS[name])
    assert {field: preset[field] for field in RECIPES[name]} == RECIPES[name]


def test_every_preset_is_a_recipe_or_smoke_and_the_defaults_are_cpu() -> None:
    assert set(PRESETS) == {*RECIPES, "smoke"}
    assert TrainConfig() == PRESETS["cpu"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_decays_its_learning_rate_to_its_last_step(name: str) -> None:
    assert PRESETS[name].lr_decay_iters == PRESETS[name].max_iters


# Generators


def drawn(seed: int, purpose: Purpose) -> tuple[float, ...]:
    return tuple(generator(seed, purpose).random(4))


def test_every_purpose_and_seed_has_its_own_stream() -> None:
    pairs = list(itertools.product((0, 1, 2, 1337, 2**32 - 1), PURPOSES))
    assert len({drawn(*pair) for pair in pairs}) == len(pairs)
    assert [drawn(*pair) for pair in pairs] == [drawn(*pair) for pair in pairs]


def test_drawing_from_one_generator_does_not_change_another() -> None:
    before = repr(np.random.get_state())  # noqa: NPY002
    init, data = generator(3, "init"), generator(3, "data")
    data.random(10)
    assert tuple(init.random(4)) == drawn(3, "init")
    assert repr(np.random.get_state()) == before  # noqa: NPY002


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_is_too_large_or_negative_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=f"seed must be in .*, not {seed}"):
        generator(seed, "data")


# The expected band

LOSSES = (1.90, 1.93, 1.89, 1.92, 1.91)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """Return the configuration of a preset that was measured on a corpus."""
    monkeypatch.setattr(config, "MEASURED", {("smoke", "some corpus"): LOSSES})
    return replace(PRESETS["smoke"], data="some corpus")


def test_the_band_is_the_95_percent_prediction_interval_of_runs_with_any_seed(
    measured: TrainConfig,
) -> None:
    band = expected_band(replace(measured, seed=99))
    assert band
    assert statistics.mean(band) == pytest.approx(statistics.mean(LOSSES), rel=1e-15)
    # LOSSES has the standard deviation √(0.001 / 4); t(97.5 %, 4 degrees of freedom) = 2.776.
    assert band[1] - band[0] == pytest.approx(2 * 2.776 * (0.001 / 4 * 6 / 5) ** 0.5, rel=1e-12)


@pytest.mark.parametrize(
    "changed", [{"n_layer": 3}, {"max_iters": 100}, {"data": "shakespeare"}, {"beta2": 0.9}]
)
def test_a_configuration_that_was_not_measured_has_no_band(
    measured: TrainConfig, changed: dict[str, Any]
) -> None:
    assert expected_band(replace(measured, **changed)) is None


@pytest.mark.parametrize("value", [10**400, math.inf])
def test_a_number_too_large_for_a_float_is_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match="learning_rate must be a finite number, not"):
        TrainConfig(learning_rate=value)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 layers"), (1, "1 layer"), (1001, "1,001 layers")],
)
def test_a_count_of_one_has_a_singular_noun(count: int, expected: str) -> None:
    assert counted(count, "layer") == expected
