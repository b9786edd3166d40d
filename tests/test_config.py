"""Settings, presets, and random generators from one seed."""

import itertools
import statistics
from dataclasses import asdict, fields, replace
from typing import Any, get_args

import pytest

from tinygpt_np import TrainConfig, config
from tinygpt_np.config import (
    DEFAULT_PRESET,
    PRESETS,
    PURPOSES,
    Architecture,
    Preset,
    expected_band,
    generator,
)
from tinygpt_np.storage.parameters import param_count

NAN, INFINITE = float("nan"), float("inf")
BAD: list[tuple[str, Any, str]] = [
    *((name, value, "positive") for name, value in (
        ("block_size", 0), ("n_layer", -1), ("n_head", 0), ("n_embd", 0), ("batch_size", 0),
        ("max_iters", 0), ("eval_interval", -5), ("learning_rate", 0.0), ("vocab_size", 0),
        ("muon_learning_rate", 0.0))),
    *((name, value, "zero or more") for name, value in (
        ("min_lr", -1e-4), ("warmup_iters", -1), ("lr_decay_iters", -1), ("weight_decay", -0.1),
        ("grad_clip", -1.0), ("eval_tokens", -1))),
    *((name, value, "in [0, 1)") for name, value in (
        ("dropout", 1.0), ("beta1", 1.0), ("beta2", -0.5), ("muon_momentum", 1.0))),
    *((name, value, "a finite number") for name, value in (
        ("dropout", NAN), ("learning_rate", 10**400), ("weight_decay", INFINITE),
        ("beta1", True))),
    ("activation", "tanh", "one of gelu, gelu_exact, relu, relu_squared, silu, swiglu"),
    ("bias", 1, "true or false"), ("data", 5, "a string"), ("norm_epsilon", 0.0, "positive"),
    ("n_inner", -1, "zero or more"), ("logit_soft_cap", -1.0, "zero or more"),
    ("n_layer", True, "an integer"), *(("seed", seed, "in [0, 2**32)") for seed in (-1, 2**32)),
    ("min_lr", 0.5, "at most learning_rate = 0.001"), ("threads", 2000, "in [0, 1024]"),
    ("dtype", "float64", "float32 with the numba backend"),
    *(("n_kv_head", heads, "0 or a divisor of n_head = 4") for heads in (-1, 3, 8)),
    ("muon_learning_rate", 0.0, "positive"), ("muon_momentum", 1.0, "in [0, 1)"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "expected"), BAD)
def test_a_bad_setting_names_the_field_its_value_and_what_is_expected(
    name: str, value: Any, expected: str
) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be") as caught:
        TrainConfig(**{name: value})
    assert str(caught.value) == f"{name} must be {expected}, not {value!r}"


@pytest.mark.parametrize("positions", ["rotary_halves", "rotary_pairs"])
def test_rotary_positions_need_heads_of_an_even_size(positions: Any) -> None:
    message = "positions must be learned for heads of the odd size n_embd / n_head = 5, not"
    with pytest.raises(ValueError, match=message):
        TrainConfig(n_embd=20, positions=positions)
    assert TrainConfig(n_embd=24, positions=positions).head_size == 6


def test_gpt_keeps_the_architecture_and_adds_the_vocabulary() -> None:
    shape: dict[str, Any] = {
        "block_size": 5, "n_layer": 2, "n_head": 3, "n_embd": 12,
        "dropout": 0.25, "bias": True, "activation": "gelu_exact", "n_kv_head": 1, "n_inner": 9,
        "norm": "rms_norm", "norm_epsilon": 1e-6, "positions": "rotary_pairs", "rope_theta": 5e5,
        "qk_norm": True, "init_std": 0.05, "embedding_std": 1.0, "tied_head": False,
        "logit_soft_cap": 15.0,
    }  # fmt: skip
    assert set(shape) == {field.name for field in fields(Architecture)}
    assert asdict(TrainConfig(**shape).gpt(7)) == {"vocab_size": 7, **shape}


# Presets

FIELDS = [
    *("n_layer", "n_head", "n_embd", "block_size", "batch_size", "gradient_accumulation_steps"),
    *("max_iters", "dropout", "learning_rate", "min_lr", "warmup_iters", "beta2", "weight_decay"),
    *("grad_clip", "tokenizer", "eval_interval", "beta1"),
]
RECIPES: dict[str, tuple[Any, ...]] = {
    "cpu": (4, 4, 128, 64, 12, 1, 2000, 0.0, 1e-3, 1e-4, 100, 0.99, 0.1, 1.0, "char", 250, 0.9),
    "microgpt": (1, 4, 16, 16, 1, 1, 1000, 0.0, 1e-2, 0.0, 0, 0.99, 0.0, 0.0, "char", 500, 0.85),
    "lecture-small": (
        4, 4, 64, 32, 16, 1, 5000, 0.0, 1e-3, 1e-3, 0, 0.999, 0.01, 0.0, "char", 500, 0.9,
    ),
    "lecture": (
        6, 6, 384, 256, 64, 1, 5000, 0.2, 3e-4, 3e-4, 0, 0.999, 0.01, 0.0, "char", 500, 0.9,
    ),
    "gpt2-124m": (
        *(12, 12, 768, 1024, 12, 40, 600_000, 0.0, 6e-4, 6e-5, 2000, 0.95, 0.1, 1.0),
        *("gpt2", 1000, 0.9),
    ),
    "finetune-shakespeare": (
        12, 12, 768, 1024, 1, 32, 20, 0.0, 3e-5, 3e-5, 0, 0.95, 0.1, 1.0, "gpt2", 5, 0.9,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_a_preset_is_the_published_recipe(name: str) -> None:
    assert tuple(getattr(PRESETS[name], field) for field in FIELDS) == RECIPES[name]


def test_the_defaults_are_preset_cpu() -> None:
    assert PRESETS["cpu"] == TrainConfig()


def test_every_preset_can_be_named_on_the_command_line() -> None:
    assert get_args(Preset) == tuple(PRESETS)
    assert DEFAULT_PRESET in PRESETS


def test_microgpt_has_the_size_of_karpathys_and_the_scales_of_its_norms() -> None:
    shape = PRESETS["microgpt"].gpt(27)
    assert (shape.norm, shape.activation, shape.positions) == ("rms_norm", "relu", "learned")
    assert not shape.bias
    assert param_count(shape) == 4192 + 3 * 16


@pytest.mark.parametrize("name", PRESETS)
def test_the_learning_rate_of_a_preset_decays_to_its_last_step(name: str) -> None:
    assert PRESETS[name].lr_decay_iters == PRESETS[name].max_iters


# Generators


def test_every_purpose_and_seed_has_its_own_generator() -> None:
    pairs: list[Any] = list(itertools.product((0, 1, 2, 1337, 2**32 - 1), PURPOSES))
    pairs += [(*pair, number) for pair in pairs for number in (1, 2)]
    generators = [generator(*pair) for pair in pairs]
    drawn = [rng.random() for rng in generators]
    assert len(set(drawn)) == len(pairs)
    assert [generator(*pair).random() for pair in pairs] == drawn
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match=f"seed must be in .*, not {seed}"):
            generator(seed, "data")


def test_the_band_is_the_95_percent_prediction_interval_of_measured_runs_with_any_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = (1.90, 1.93, 1.89, 1.92, 1.91)
    monkeypatch.setattr(config, "MEASURED", {("smoke", "some corpus"): losses})
    measured = replace(PRESETS["smoke"], data="some corpus")
    band = expected_band(replace(measured, seed=99))
    assert band
    assert statistics.mean(band) == pytest.approx(statistics.mean(losses), rel=1e-15)
    # Their standard deviation is √(0.001 / 4); t(97.5 %, 4 degrees of freedom) = 2.776.
    assert band[1] - band[0] == pytest.approx(2 * 2.776 * (0.001 / 4 * 6 / 5) ** 0.5, rel=1e-12)
    monkeypatch.setattr(config, "MEASURED", {("smoke", "some corpus"): losses[:3]})
    band = expected_band(measured)
    # Their mean is 1.906667, and the standard deviation 0.020817; t(97.5 %, 2) = 4.303.
    assert band == pytest.approx((1.803233, 2.010100), abs=1e-5)
    assert expected_band(replace(measured, n_layer=3)) is None
    assert expected_band(replace(measured, max_iters=100)) is None
    assert expected_band(replace(measured, data="shakespeare")) is None
